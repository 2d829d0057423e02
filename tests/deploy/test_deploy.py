"""What deploy/ promises: rules that promtool accepts, an image of files that exist, a fleet that may be restarted."""

import json
import os
import re
import shlex
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.prometheus_server import require_prometheus
from tests.support.repository import REPOSITORY
from worker.cli import run_command_line
from worker.config import load_config
from worker.database.address import parse_database_url

DEPLOY = REPOSITORY / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
RUNBOOKS = REPOSITORY / "docs" / "runbooks"
RULES = sorted((DEPLOY / "prometheus" / "rules").glob("*.yml"))
RULE_TESTS = sorted((REPOSITORY / "tests" / "prometheus").glob("*_test.yml"))
USER_ID = 10001


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


# Prometheus


def alerts() -> list[dict[str, Any]]:
    rules = chain.from_iterable(group["rules"] for path in RULES for group in read(path)["groups"])
    return [rule for rule in rules if "alert" in rule]


@pytest.mark.parametrize(
    "command",
    [
        ["check", "rules", *RULES],
        ["check", "config", DEPLOY / "prometheus" / "prometheus.yml"],
        *(["test", "rules", path] for path in RULE_TESTS),
    ],
    ids=lambda command: " ".join([*map(str, command[:2]), Path(command[2]).name]),
)
def test_promtool_is_content(command: list[object]) -> None:
    require_prometheus()
    done = subprocess.run(["promtool", *map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_an_alert_says_what_is_wrong_and_where_to_read_on(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in {"page", "warning"}
    assert alert["annotations"]["summary"]
    assert alert["annotations"]["description"]
    link = alert["annotations"]["runbook_url"]
    page = RUNBOOKS / link.rpartition("/")[2]
    assert link == f'{{{{ or $externalLabels.runbooks "docs/runbooks" }}}}/{page.name}'
    assert alert["alert"] in page.read_text(encoding="utf-8"), f"{page} does not name the alert"


def test_every_runbook_belongs_to_an_alert_and_is_listed() -> None:
    linked = {alert["annotations"]["runbook_url"].rpartition("/")[2] for alert in alerts()}
    pages = {path.name for path in RUNBOOKS.glob("*.md")} - {"README.md"}
    assert pages == linked
    index = (RUNBOOKS / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\]\(([\w-]+\.md)\)", index)) == pages


@pytest.mark.parametrize("page", sorted(RUNBOOKS.glob("[a-z]*.md")), ids=lambda page: page.stem)
def test_a_runbook_leads_from_the_symptom_to_the_remedy(page: Path) -> None:
    headings = re.findall(r"^## (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert headings == ["Symptom", "First look", "Causes and remedies"]


def test_every_alert_was_seen_to_fire_and_to_keep_silent() -> None:
    checks = [check for path in RULE_TESTS for case in read(path)["tests"] for check in case.get("alert_rule_test", [])]
    fired = {check["alertname"] for check in checks if check["exp_alerts"]}
    assert fired == {alert["alert"] for alert in alerts()}


# The image

_INSTRUCTION = re.compile(r"^([A-Z]+)\s+(.*)$")


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"^#.*\n", "", (DEPLOY / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(found[1], found[2]) for line in lines if (found := _INSTRUCTION.match(line))]


def copied() -> list[str]:
    """The files and folders of the repository that the image is made from."""
    arguments = [shlex.split(rest) for name, rest in instructions() if name == "COPY"]
    return [source for words in arguments if not words[0].startswith("--from") for source in words[:-1]]


def test_what_the_image_copies_exists_is_tracked_and_is_sent_to_the_builder() -> None:
    sent = {line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")}
    assert set(copied()) == sent
    ignored = subprocess.run(
        ["git", "check-ignore", *sent], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert ignored.stdout == ""
    assert all((REPOSITORY / path).exists() for path in sent)


def test_everything_in_the_image_comes_with_a_hash() -> None:
    installs = [rest for name, rest in instructions() if name == "RUN" and "pip install" in rest]
    assert installs
    for command in installs:
        assert "--require-hashes" in command or "--no-deps --no-index" in command
    for lock in (path for path in copied() if path.startswith("requirements")):
        entries = [entry for entry in re.split(r"\n(?=\S)", (REPOSITORY / lock).read_text()) if entry.strip()]
        assert all("--hash=sha256:" in entry for entry in entries)


RUNTIMES = {"gpu": "tensorflow", "gpu-jax": "jax-cuda13-plugin", "gpu-torch": "torch"}


@pytest.mark.parametrize(
    "lock", [*(f"requirements-{extra}.txt" for extra in RUNTIMES), "requirements-build.txt", "requirements-console.txt"]
)
def test_the_locks_of_the_image_agree_with_those_that_are_tested(lock: str) -> None:
    pins = {
        name: dict(re.findall(r"^([\w.-]+)==([^\s;]+)", (REPOSITORY / name).read_text(), re.MULTILINE))
        for name in (lock, "requirements.txt", "requirements-test.txt")
    }
    tested = pins["requirements-test.txt"]
    assert {
        package: version for package, version in pins[lock].items() if tested.get(package, version) != version
    } == {}
    extra = lock.removeprefix("requirements-").removesuffix(".txt")
    if extra in RUNTIMES:
        assert {*pins["requirements.txt"], RUNTIMES[extra]} <= pins[lock].keys()
        assert any(package.startswith("nvidia-") for package in pins[lock])


def test_the_image_runs_as_nobody_in_particular_and_says_whether_it_is_well() -> None:
    by_name = dict(instructions())
    assert by_name["USER"] == f"{USER_ID}:{USER_ID}"
    assert by_name["STOPSIGNAL"] == "SIGTERM"
    assert json.loads(by_name["ENTRYPOINT"]) == ["facestream"]
    assert run_command_line([*json.loads(by_name["CMD"])[:1], "--help"]) == 0
    ports = {port.split()[0] for name, port in instructions() if name == "EXPOSE"}
    config = load_config()
    assert ports == {str(config.metrics.port), str(config.console.port)}


def test_what_is_built_by_default_is_a_worker_that_has_nothing_of_the_console() -> None:
    stages: dict[str, list[tuple[str, str]]] = {}
    for name, rest in instructions():
        if name == "FROM":
            stages[rest.partition(" AS ")[2]] = []
        elif stages:
            list(stages.values())[-1].append((name, rest))
    assert list(stages)[-1] == "cpu"
    for target, extra in (("cpu", set()), ("console", {"argon2-cffi", "fastapi", "jinja2", "starlette", "uvicorn"})):
        (lock,) = [
            rest.split()[0] for name, rest in stages[f"installed-{target}"] if name == "COPY" and "--from" not in rest
        ]
        pinned = set(re.findall(r"^([\w.-]+)==", (REPOSITORY / lock).read_text(), re.MULTILINE))
        console = {"argon2-cffi", "fastapi", "jinja2", "starlette", "uvicorn"}
        assert pinned & console == extra
        assert ("COPY", f"--from=installed-{target} /opt/facestream /opt/facestream") in stages[target]
    (command,) = [json.loads(rest) for name, rest in stages["console"] if name == "CMD"]
    assert run_command_line([command[0], "--help"]) == 0
    told = " ".join(rest for name, rest in stages["console"] if name == "ENV")
    settings = dict(re.findall(r"FACESTREAM_CONSOLE__(\w+)=(\S+)", told))
    assert settings == {"HOST": "0.0.0.0", "METRICS_PORT": str(load_config().metrics.port)}


class _Worker:
    """Answers like the port of a worker."""

    def __init__(self, status: int, text: str) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                worker.asked.append(self.path)
                self.send_response(worker.status)
                self.end_headers()
                self.wfile.write(worker.text.encode())

            def log_message(self, *_: object) -> None:
                pass

        worker = self
        self.status, self.text, self.asked = status, text, list[str]()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_the_health_check_tells_a_worker_that_hangs_from_one_that_does_not(status: int, healthy: bool) -> None:
    worker = _Worker(status, "{}")
    check = dict(instructions())["HEALTHCHECK"].partition("CMD ")[2].replace(":9464/", f":{worker.port}/")
    _, *arguments = json.loads(check)
    done = subprocess.run([sys.executable, *arguments], capture_output=True, check=False, timeout=30)
    worker.close()
    assert (done.returncode == 0) is healthy
    assert worker.asked == ["/healthz"]


# Compose


def test_the_example_fleet_is_hardened_and_pinned() -> None:
    for name, service in read(DEPLOY / "compose.yaml")["services"].items():
        image = service["image"]
        assert image.startswith(("facestream:", "facestream-console:")) or re.search(
            r":v?\d+\.\d+(\.\d+|-\w+)", image
        ), f"{image}: a tag says what a digest is"
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))


def test_the_example_fleet_is_scraped_and_its_files_are_there() -> None:
    compose = read(DEPLOY / "compose.yaml")
    workers = {name for name, service in compose["services"].items() if "--fleet" in service.get("command", ())}
    assert len(workers) == 2
    jobs = {job["job_name"]: job for job in read(DEPLOY / "prometheus" / "prometheus.yml")["scrape_configs"]}
    assert {target.split(":")[0] for target in jobs["facestream"]["static_configs"][0]["targets"]} == workers
    (console,) = jobs["facestream-console"]["static_configs"][0]["targets"]
    assert console.split(":")[0] in compose["services"]
    mounts = [volume for service in compose["services"].values() for volume in service.get("volumes", ())]
    files = [mount.split(":")[0] for mount in mounts if mount.startswith("./")]
    files += [config["file"] for config in compose["configs"].values()]
    assert all((DEPLOY / file).exists() for file in files)


def test_the_fleet_on_a_gpu_changes_only_its_workers_and_builds_a_stage_that_there_is() -> None:
    services = read(DEPLOY / "compose.yaml")["services"]
    workers = {name for name, service in services.items() if "--fleet" in service.get("command", ())}
    on_gpu = read(DEPLOY / "compose.gpu.yaml")["services"]
    assert set(on_gpu) == workers
    stages = re.findall(r"^FROM \S+ AS (\S+)", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    (chosen,) = {service["build"]["target"] for service in on_gpu.values()}
    assert all(service["image"].endswith(f"-{chosen}") for service in on_gpu.values())
    default = re.fullmatch(r"\$\{FACESTREAM_GPU:-([\w-]+)\}", chosen)
    assert default
    assert {default[1], "gpu-jax", "gpu-torch"} <= set(stages)
    for name, service in on_gpu.items():
        assert service["image"] != services[name]["image"], "an image of the processor must not be taken for it"
        (device,) = service["deploy"]["resources"]["reservations"]["devices"]
        assert device["capabilities"] == ["gpu"]
    (capabilities,) = re.findall(r"NVIDIA_DRIVER_CAPABILITIES=(\S+)", (DEPLOY / "Dockerfile").read_text())
    assert set(capabilities.split(",")) == {"compute", "utility", "video"}, "networks, nvidia-smi, decoding"


def test_commands_of_the_example_fleet_are_commands() -> None:
    services = read(DEPLOY / "compose.yaml")["services"]
    own = [service for service in services.values() if service["image"].startswith("facestream")]
    lines = [
        shlex.join(service["command"]) if "entrypoint" not in service else service["command"][0] for service in own
    ]
    commands = [part.removeprefix("facestream ").split() for line in lines for part in line.split(" && ")]
    assert len(commands) == 8
    for words in commands:
        name = words[:2] if words[0] in {"camera", "database"} else words[:1]
        assert run_command_line([*name, "--help"]) == 0


# Kubernetes and systemd


@pytest.mark.parametrize(
    "path",
    [DEPLOY / "compose" / "worker.yaml", KUBERNETES / "base" / "worker.yaml", KUBERNETES / "console" / "console.yaml"],
    ids=str,
)
def test_configurations_that_are_shipped_are_accepted(path: Path) -> None:
    config = load_config(path)
    assert config.fleet.enabled is (path.name == "worker.yaml")
    assert config.gallery is not None
    address = parse_database_url(config.gallery)
    assert (address.gallery, address.password_file is not None) == ("people", True)


def test_everything_that_kustomize_is_told_of_exists() -> None:
    kustomizations = [*KUBERNETES.rglob("kustomization.yaml"), DEPLOY / "grafana" / "kustomization.yaml"]
    assert len(kustomizations) == 8
    for path in kustomizations:
        document = read(path)
        named = [*document.get("resources", ()), *document.get("components", ())]
        named += [file for maker in document.get("configMapGenerator", ()) for file in maker["files"]]
        for name in named:
            assert (path.parent / name).exists(), f"{path}: {name}"


@pytest.fixture
def pod() -> dict[str, Any]:
    template: dict[str, Any] = read(KUBERNETES / "base" / "statefulset.yaml")["spec"]["template"]["spec"]
    return template


def test_a_pod_may_do_nothing_that_a_worker_need_not(pod: dict[str, Any]) -> None:
    (worker,) = pod["containers"]
    assert pod["securityContext"]["runAsUser"] == USER_ID
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert worker["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    assert {"cpu", "memory"} <= worker["resources"]["limits"].keys()
    written = {mount["mountPath"] for mount in worker["volumeMounts"] if not mount.get("readOnly")}
    assert written == {"/var/lib/facestream", "/var/cache/facestream", "/tmp"}
    probes = {worker[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness")}
    assert (probes, worker["readinessProbe"]["httpGet"]["path"]) == ({"/healthz"}, "/readyz")


@pytest.mark.parametrize(("folder", "name"), [("base", "facestream"), ("console", "facestream-console")])
def test_each_policy_is_for_its_own_pods(folder: str, name: str) -> None:
    """Policies add up: one for all pods of the namespace would give a console the cameras."""
    policy = read(KUBERNETES / folder / "networkpolicy.yaml")["spec"]
    assert policy["podSelector"] == {"matchLabels": {"app.kubernetes.io/name": name}}


def test_the_budget_for_disruptions_names_the_workers() -> None:
    """Without a selector it would hold for no pod."""
    budget = read(KUBERNETES / "base" / "poddisruptionbudget.yaml")["spec"]
    assert budget["selector"] == {"matchLabels": {"app.kubernetes.io/name": "facestream"}}


def test_the_pod_of_the_console_is_as_narrow_and_is_probed_where_it_answers() -> None:
    spec = read(KUBERNETES / "console" / "deployment.yaml")["spec"]
    pod = spec["template"]["spec"]
    worker = read(KUBERNETES / "base" / "statefulset.yaml")["spec"]["template"]["spec"]
    (console,) = pod["containers"]
    assert pod["securityContext"] == worker["securityContext"]
    assert console["securityContext"] == worker["containers"][0]["securityContext"]
    assert {"cpu", "memory"} <= console["resources"]["limits"].keys()
    config = load_config(KUBERNETES / "console" / "console.yaml")
    ports = {port["name"]: port["containerPort"] for port in console["ports"]}
    assert ports == {"http": config.console.port, "metrics": config.console.metrics_port}
    assert {console[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness")} == {"/healthz"}
    assert console["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "metrics"}
    (port,) = read(KUBERNETES / "console" / "service.yaml")["spec"]["ports"]
    assert (port["port"], port["targetPort"]) == (config.console.port, "http")
    assert spec["strategy"] == {"type": "Recreate"}, "two pods cannot have its volume at once"


def test_a_pod_is_given_the_time_that_a_stop_may_take(pod: dict[str, Any]) -> None:
    config = load_config(KUBERNETES / "base" / "worker.yaml")
    assert pod["terminationGracePeriodSeconds"] > 20 + config.fleet.lease_s + config.redis.flush_timeout_s


@pytest.mark.parametrize(("workers", "waits"), [("1.0", True), ("2.0", False)])
def test_the_last_worker_waits_a_little_for_somebody_to_hand_its_cameras_to(
    pod: dict[str, Any], workers: str, waits: bool
) -> None:
    program = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][2]
    worker = _Worker(200, f"# HELP facestream_fleet_workers\nfacestream_fleet_workers {workers}\n")
    program = program.replace("time.sleep(1)", "time.sleep(0.01)")
    environment = {**os.environ, "FACESTREAM_METRICS__PORT": str(worker.port)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, check=False, timeout=60
    )
    worker.close()
    assert done.returncode == 0, done.stderr
    assert len(worker.asked) == (20 if waits else 1)


@pytest.mark.parametrize("name", ["facestream", "facestream-console"])
def test_a_unit_of_systemd_starts_a_command_that_exists(name: str) -> None:
    unit = (DEPLOY / "systemd" / f"{name}.service").read_text(encoding="utf-8")
    (command,) = re.findall(r"^ExecStart=\S+/facestream (.+)$", unit, re.MULTILINE)
    assert run_command_line([command.split()[0], "--help"]) == 0
    settings = set(re.findall(r"(FACESTREAM_\w+)=", unit))
    known = {f"FACESTREAM_{name.upper()}" for name in type(load_config()).model_fields} | {"FACESTREAM_CACHE_DIR"}
    assert {setting.split("__")[0] for setting in settings} <= known
