"""Writes what is made from something else: Grafana's dashboards, the alert rules for the Prometheus operator, and the
templates of the Helm chart.

Usage: python deploy/generate.py
"""

import json
import sys
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).resolve().parent
sys.path[:0] = [str(DEPLOY / "grafana"), str(DEPLOY)]

from chart import chart_files  # noqa: E402
from dashboards import DASHBOARDS  # noqa: E402


def generated() -> dict[Path, str]:
    """Each generated file and what stands in it."""
    files = {DEPLOY / "grafana" / "dashboards" / f"{name}.json": _json(make()) for name, make in DASHBOARDS.items()}
    rules = DEPLOY / "kubernetes" / "monitoring" / "rules.yaml"
    files[rules] = _operator_rules()
    # The chart takes up the rules as they are now.
    return files | chart_files(files[rules])


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=1) + "\n"


def _operator_rules() -> str:
    rules = sorted((DEPLOY / "prometheus" / "rules").glob("*.yml"))
    groups = [group for path in rules for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]]
    manifest = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "facestream"},
        "spec": {"groups": groups},
    }
    return "# Made by deploy/generate.py from prometheus/rules.\n" + yaml.safe_dump(
        manifest, sort_keys=False, width=110
    )


if __name__ == "__main__":
    for path, text in generated().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(DEPLOY.parent))
