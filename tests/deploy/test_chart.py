"""The Helm chart, by Helm's own engine: it makes what kustomize makes, and what a cluster decides reaches its place."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.repository import REPOSITORY
from worker.config import load_config

CHART = REPOSITORY / "deploy" / "helm" / "facestream"
OVERLAYS = REPOSITORY / "deploy" / "kubernetes" / "overlays"
MADE_ELSEWHERE = {("Namespace", "facestream"), ("ScaledObject", "facestream"), ("ConfigMap", "facestream-dashboards")}
"""In the overlay of kustomize, and not in the chart."""

helm = pytest.importorskip("helm_python", reason="no Helm here: pip install helm-python-sdk")


def rendered(**values: Any) -> dict[tuple[str, str], Any]:
    files = helm.Chart.load(CHART).render(values, name="facestream", namespace="facestream")
    texts = [text for name, text in files.items() if name.endswith(".yaml")]
    objects = [each for text in texts for each in yaml.safe_load_all(text) if each]
    found = {(each["kind"], each["metadata"]["name"]): each for each in objects}
    assert len(found) == len(objects)
    return found


def configuration(made: Any) -> Any:
    """A map of configuration with its YAML read: order and comments are no difference."""
    return made | {"data": {name: yaml.safe_load(text) for name, text in made["data"].items()}}


def plain(made: Any) -> Any:
    """Without what only one of the two tools writes: the namespace, names that hold a digest, and empty things."""
    text = re.sub(r"(facestream(?:-console)?)-[bcdfghkmt2456789]{10}\b", r"\1", yaml.safe_dump(made))
    made = yaml.safe_load(text)
    made["metadata"].pop("namespace", None)
    if made["kind"] == "ConfigMap":
        made = configuration(made)
    template = made.get("spec", {}).get("template")
    if template is not None:
        template["metadata"].pop("annotations", None)
    return made


def test_lint_finds_nothing() -> None:
    report = helm.lint(CHART, strict=True)
    assert report["errors"] == []
    assert [each for each in report["messages"] if each["error"] != "icon is recommended"] == []


@pytest.mark.parametrize("overlay", ["cpu", "gpu"])
def test_it_makes_the_same_objects_as_kustomize(overlay: str) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl: install it, for kustomize")
    done = subprocess.run(["kubectl", "kustomize", OVERLAYS / overlay], capture_output=True, text=True, check=True)
    theirs = [plain(each) for each in yaml.safe_load_all(done.stdout)]
    expected = {(each["kind"], each["metadata"]["name"]): each for each in theirs}
    for key in MADE_ELSEWHERE:
        del expected[key]
    # There KEDA sets how many workers there are.
    expected["StatefulSet", "facestream"]["spec"]["replicas"] = 2
    own = CHART / f"values-{overlay}.yaml"
    values = yaml.safe_load(own.read_text()) if own.exists() else {}
    ours = {key: plain(each) for key, each in rendered(monitoring={"enabled": True}, **values).items()}
    assert ours.keys() == expected.keys()
    for key, made in ours.items():
        assert made == expected[key], key


def test_addresses_settings_and_placement_reach_their_place(tmp_path: Path) -> None:
    made = rendered(
        redis={"url": "rediss://r.example.org:6380/1", "consoleUrl": "rediss://c@r.example.org:6380/1"},
        postgresql={
            "gallery": "postgresql://w@p.example.org/site?gallery=staff",
            "consoleGallery": "postgresql://c@p.example.org/site?gallery=staff",
        },
        fleet="north",
        worker={
            "replicas": 5, "secret": "other", "settings": {"recognition": {"threshold": 0.4}, "fleet": {"lease_s": 9}},
            "accelerator": "gpu", "nodeSelector": {"disk": "fast"}, "storage": {"size": "9Gi", "class": "ssd"},
            "image": {"tag": "2.0"},
        },
        console={
            "allowedHosts": ["a.example.org"], "settings": {"console": {"session_hours": 2}},
            "tolerations": [{"key": "x", "operator": "Exists"}], "ingress": {"enabled": True},
        },
        namespaces={"redis": "data"},
    )  # fmt: skip
    for name, map_name in (("worker", "facestream"), ("console", "facestream-console")):
        (tmp_path / f"{name}.yaml").write_text(made["ConfigMap", map_name]["data"][f"{name}.yaml"])
    worker, console = (load_config(tmp_path / f"{name}.yaml") for name in ("worker", "console"))
    assert worker.gallery == (
        "postgresql://w@p.example.org/site?gallery=staff&password_file=/run/secrets/facestream/postgres-password"
    )
    assert worker.redis.url.get_secret_value() == "rediss://r.example.org:6380/1"
    assert (worker.fleet.enabled, worker.fleet.name, worker.fleet.lease_s) == (True, "north", 9)
    assert worker.recognition.threshold == 0.4
    assert (console.console.allowed_hosts, console.console.session_hours) == (("a.example.org",), 2)
    assert console.console.metrics_port == 9464
    workers, pages = made["StatefulSet", "facestream"]["spec"], made["Deployment", "facestream-console"]["spec"]
    assert workers["replicas"] == 5
    assert workers["template"]["metadata"]["labels"]["accelerator"] == "gpu"
    pod = workers["template"]["spec"]
    assert pod["containers"][0]["image"] == "registry.example.org/facestream:2.0"
    assert pod["nodeSelector"] == {"disk": "fast"}
    assert [each["secret"]["secretName"] for each in pod["volumes"] if "secret" in each] == ["other"]
    claim = workers["volumeClaimTemplates"][0]["spec"]
    assert (claim["storageClassName"], claim["resources"]["requests"]["storage"]) == ("ssd", "9Gi")
    assert pages["template"]["spec"]["tolerations"] == [{"key": "x", "operator": "Exists"}]
    assert made["Ingress", "facestream-console"]["spec"]["rules"][0]["host"] == "a.example.org"
    assert '"kubernetes.io/metadata.name": "data"' in str(made["NetworkPolicy", "facestream"]).replace("'", '"')


def test_a_changed_setting_restarts_what_reads_it_and_nothing_else() -> None:
    def sums(**values: Any) -> list[str]:
        made = rendered(**values)
        return [
            made[key]["spec"]["template"]["metadata"]["annotations"]["checksum/config"]
            for key in (("StatefulSet", "facestream"), ("Deployment", "facestream-console"))
        ]

    before, after = sums(), sums(worker={"settings": {"recognition": {"threshold": 0.4}}})
    assert before[0] != after[0]
    assert before[1] == after[1]


def test_without_the_console_there_is_nothing_of_it() -> None:
    made = rendered(console={"enabled": False, "ingress": {"enabled": True}}, networkPolicy=False)
    assert not [key for key in made if "console" in key[1]]
    assert not [key for key in made if key[0] == "NetworkPolicy"]
