"""Every query of the dashboards and the rules asks for what workers really export."""

import inspect
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import yaml
from prometheus_client import CollectorRegistry

from tests.support.prometheus_server import PrometheusServer, require_prometheus
from tests.support.repository import REPOSITORY
from worker.api.metrics import ConsoleMetrics, Login
from worker.observer import SOURCE_STATES, Observer
from worker.service.metrics import PrometheusObserver

DEPLOY = REPOSITORY / "deploy"
RULES = sorted((DEPLOY / "prometheus" / "rules").glob("*.yml"))
DASHBOARDS = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))
SCALING = DEPLOY / "kubernetes" / "autoscaling" / "scaledobject.yaml"
DOCUMENT = (REPOSITORY / "docs" / "metrics.md").read_text(encoding="utf-8")

TARGET_LABELS = {"job", "instance", "namespace", "accelerator"}
"""What the scrape configurations add to each series."""
ALERT_LABELS = {"alertname", "alertstate", "severity"}
PROMETHEUS_OWN = {"up": set[str](), "ALERTS": ALERT_LABELS | {"camera"}}
_GIVEN = {"engine": "openvino", "device": "CPU", "precision": "fp32", "outcome": "agree", "queue": "door"}


@pytest.fixture(scope="module")
def told() -> PrometheusObserver:
    """An observer whose every method was called, so that each of its metrics has series; ``door`` streams."""
    observer = PrometheusObserver()
    for name, method in inspect.getmembers(Observer, inspect.isfunction):
        if name.startswith("_") or name in {"stage", "source_state", "camera_added", "camera_removed", "lease_ended"}:
            continue
        signature = inspect.signature(method)
        arguments = {p.name: _value(p) for p in list(signature.parameters.values())[1:]}
        getattr(observer, name)(**arguments)
    observer.lease_gained("door", 7)
    for reason in ("interval", "load"):
        observer.frame_skipped("door", reason)
    observer.verdict("door", named=False, similarity=0.3, margin=0.1)
    for stage in ("search", "publish"):
        with observer.stage(stage):
            pass
    observer.queue_depth("history", 3)
    observer.source_state("door", "streaming")
    observer.source_state("yard", "waiting")
    return observer


@pytest.fixture(scope="module")
def told_by_console() -> ConsoleMetrics:
    """The metrics of a console whose every method was called."""
    metrics = ConsoleMetrics()
    for path in ("/people", "/api/v1/people", "/faces/x", "/static/x.css"):
        for status in (200, 303, 404, 503):
            metrics.answered(path, status, 0.1)
    metrics.follow(3)
    metrics.sent_away()
    metrics.told("1-0")
    for outcome in get_args(Login):
        metrics.login(outcome)
    return metrics


def _value(parameter: inspect.Parameter) -> Any:
    if parameter.name in _GIVEN:
        return _GIVEN[parameter.name]
    annotation = parameter.annotation
    if get_origin(annotation) is Literal:
        return get_args(annotation)[0]
    if annotation is str:
        return "door" if parameter.name == "camera_id" else "some"
    if get_origin(annotation) is Mapping:
        return {"some": 1}
    return True if annotation is bool else 0.5 if "float" in str(annotation) else 1


@pytest.fixture(scope="module")
def labels_of(told: PrometheusObserver, told_by_console: ConsoleMetrics) -> dict[str, set[str]]:
    """Every series that may be asked for, with its labels: those of workers and console, Prometheus's own, recorded
    ones."""
    known = {name: set(labels) for name, labels in PROMETHEUS_OWN.items()}
    for family in [*told.registry.collect(), *told_by_console.registry.collect()]:
        for sample in family.samples:
            known.setdefault(sample.name, set()).update(sample.labels)
    for rule in _rules():
        if "record" in rule:
            grouping = re.search(r"by \(([^)]*)\)", rule["expr"])
            known[rule["record"]] = set(re.findall(r"\w+", grouping[1])) - {"le"} if grouping else set()
    return known


def _rules() -> list[dict[str, Any]]:
    groups = [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"]]


def _panels(path: Path) -> list[dict[str, Any]]:
    return [panel for panel in json.loads(path.read_text())["panels"] if panel["type"] != "row"]


def _queries() -> Iterator[tuple[str, str]]:
    """Where each query stands, and the query."""
    for rule in _rules():
        yield rule.get("alert") or rule["record"], rule["expr"]
    for path in DASHBOARDS:
        yield from _queries_of_a_dashboard(path)
    for trigger in yaml.safe_load(SCALING.read_text())["spec"]["triggers"]:
        yield "scaling", trigger["metadata"]["query"]
    for test in sorted((REPOSITORY / "tests" / "prometheus").glob("*_test.yml")):
        cases = yaml.safe_load(test.read_text())["tests"]
        invented = {series["series"] for case in cases for series in case["input_series"]}
        yield from ((test.name, series) for series in sorted(invented) if 'job="other"' not in series)


def _queries_of_a_dashboard(path: Path) -> Iterator[tuple[str, str]]:
    for panel in _panels(path):
        for target in panel["targets"]:
            yield f"{path.stem}: {panel['title']}", target["expr"]
    for variable in json.loads(path.read_text())["templating"]["list"]:
        if asked := re.fullmatch(r"label_values\((\w+), (\w+)\)", variable.get("definition", "")):
            yield f"{path.stem}: variable {variable['name']}", f'{asked[1]}{{{asked[2]}=~".*"}}'


_SELECTOR = re.compile(r"(?<![\w:$])((?:facestream|camera:|job:)[\w:]*|up|ALERTS)\b(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')


@pytest.mark.parametrize(("place", "query"), list(_queries()))
def test_a_query_names_only_series_and_labels_that_exist(
    place: str, query: str, labels_of: dict[str, set[str]]
) -> None:
    bare = re.sub(r'"[^"]*"', '""', query)
    grouped = {label for group in re.findall(r"\b(?:by|on|without) \(([^)]*)\)", bare) for label in group.split(", ")}
    selectors = [found for found in _SELECTOR.findall(query) if found[0] not in grouped]
    assert selectors
    every_label: set[str] = set()
    for name, matchers in selectors:
        assert name in labels_of, f"{place} asks for {name}, which nobody exports"
        available = labels_of[name] | TARGET_LABELS
        every_label |= available
        for label, operator, value in _MATCHER.findall(matchers):
            assert label in available, f"{place}: {name} has no label {label}"
            if operator in {"=", "!="} and place in {rule.get("alert") for rule in _rules()}:
                assert _is_a_value(label, value), f"{place}: {label} is never {value}"
    assert grouped - {""} <= every_label, f"{place} groups by {grouped - every_label}"


def _is_a_value(label: str, value: str) -> bool:
    return label in TARGET_LABELS or f"`{value}`" in DOCUMENT


def test_states_and_reasons_in_patterns_are_real() -> None:
    patterns = {(label, value) for _, query in _queries() for label, operator, value in _MATCHER.findall(query)
                if operator in {"=~", "!~"} and "$" not in value and label in {"state", "reason"}}  # fmt: skip
    assert patterns
    for label, pattern in patterns:
        for value in pattern.split("|"):
            assert value in SOURCE_STATES if label == "state" else f"`{value}`" in DOCUMENT


def test_the_generated_files_are_up_to_date() -> None:
    namespace: dict[str, Any] = {"__name__": "generate", "__file__": str(DEPLOY / "generate.py")}
    exec(compile((DEPLOY / "generate.py").read_text(), "generate.py", "exec"), namespace)  # a script, not a module
    for path, text in namespace["generated"]().items():
        assert path.read_text() == text, f"{path} differs: python deploy/generate.py"


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_is_laid_out_without_overlap_and_provisioned(path: Path) -> None:
    document = json.loads(path.read_text())
    taken: set[tuple[int, int]] = set()
    for panel in document["panels"]:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                 for y in range(place["y"], place["y"] + place["h"])}  # fmt: skip
        assert not taken & cells, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    ids = [panel["id"] for panel in document["panels"]]
    assert len(set(ids)) == len(ids)
    shipped = yaml.safe_load((DEPLOY / "grafana" / "kustomization.yaml").read_text())["configMapGenerator"][0]["files"]
    assert f"dashboards/{path.name}" in shipped


def test_dashboards_have_ids_of_their_own() -> None:
    ids = [json.loads(path.read_text())["uid"] for path in DASHBOARDS]
    assert sorted(ids) == [f"facestream-{name}" for name in ("camera", "console", "events", "fleet", "recognition")]


# The same in a real Prometheus.


@pytest.fixture(scope="module")
def prometheus(
    told: PrometheusObserver, told_by_console: ConsoleMetrics, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PrometheusServer]:
    """Nine days of what ``told`` and ``told_by_console`` export, and the rules."""
    require_prometheus()
    folder = tmp_path_factory.mktemp("prometheus")
    rules = folder / "rules"
    shutil.copytree(DEPLOY / "prometheus" / "rules", rules)
    for path in rules.iterdir():
        path.write_text(path.read_text().replace("interval: 15m", "interval: 1s").replace("for: 10s", "for: 1s"))
    config = {"global": {"evaluation_interval": "1s"}, "rule_files": [f"{rules}/*.yml"]}
    server = PrometheusServer(folder, config)
    past = folder / "past.txt"
    past.write_text(_openmetrics({"facestream": told.registry, "facestream-console": told_by_console.registry}))
    subprocess.run(
        ["promtool", "tsdb", "create-blocks-from", "openmetrics", "--quiet", past, server.data],
        check=True,
        capture_output=True,
    )
    server.start()
    deadline = time.monotonic() + 20
    late = (
        'ALERTS{alertname="FacestreamCameraDown", alertstate="firing"} and on () camera:facestream_face_quality:mean1d'
    )
    while not server.query(late) and time.monotonic() < deadline:
        time.sleep(0.2)  # rules are evaluated once a second, group by group
    yield server
    server.stop()


def _openmetrics(jobs: dict[str, CollectorRegistry]) -> str:
    """All samples at some moments of the last nine days, and every 10 s of the last ten minutes."""
    now = time.time()
    ages_s = [*(3600 * hours for hours in (200, 120, 60, 26, 22, 12, 3)), *range(600, -1, -10)]
    lines = [line for job, registry in jobs.items() for family in registry.collect() for sample in family.samples
             for line in _lines(sample.name, sample.labels | {"job": job}, sample.value, now, ages_s)]  # fmt: skip
    up = [line for job in jobs for line in _lines("up", {"job": job}, 1, now, ages_s)]
    return "\n".join([*lines, *up, "# EOF\n"])


def _lines(name: str, labels: dict[str, str], value: float, now: float, ages_s: list[int]) -> Iterator[str]:
    labels = labels | {"instance": "w1:9464"}
    written = ",".join(f'{label}="{text}"' for label, text in labels.items())
    for age_s in ages_s:
        yield f"{name}{{{written}}} {value} {now - age_s:.3f}"


def _asked_in(path: Path) -> list[Any]:
    return [pytest.param(panel, target, id=f"{path.stem}: {panel['title']}: {target['refId']}")
            for panel in _panels(path) for target in panel["targets"]]  # fmt: skip


@pytest.mark.parametrize(("panel", "target"), [asked for path in DASHBOARDS for asked in _asked_in(path)])
def test_a_panel_shows_something_under_the_names_it_promises(
    panel: dict[str, Any], target: dict[str, Any], prometheus: PrometheusServer
) -> None:
    query = target["expr"].replace("$__rate_interval", "1m").replace("$camera", ".*")
    found = prometheus.query(query)
    assert found, f"no data: {query}"
    promised = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) - {"le"}
    if panel["type"] == "table":
        promised = set(panel["transformations"][1]["options"]["indexByName"])
    names = {label for series in found for label in series["metric"]}
    if "ALERTS" in query:
        # Which labels there are depends on which alerts happen to fire.
        promised &= {"alertname", "severity", "alertstate"}
    assert promised <= names, f"{panel['title']} has no {promised - names}"
