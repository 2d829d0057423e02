"""The panels of a dashboard as one picture, from a running Prometheus: for machines without Grafana.

Usage: python -m tests.bench.plot_metrics URL [--dashboard fleet] [--hours 1] [--output FILE]
"""

import argparse
import json
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

DASHBOARDS = Path(__file__).resolve().parents[2] / "deploy" / "grafana" / "dashboards"
COLUMNS = 3
POINTS = 240
LABELS = ("camera", "instance", "stage", "reason", "state", "type", "group")


def ask(url: str, query: str, hours: float) -> list[dict[str, Any]]:
    """The series of a range query over the last ``hours``."""
    end_s = time.time()
    step_s = max(1.0, hours * 3600 / POINTS)
    parameters = urllib.parse.urlencode({"query": query, "start": end_s - hours * 3600, "end": end_s, "step": step_s})
    with urllib.request.urlopen(f"{url.rstrip('/')}/api/v1/query_range?{parameters}", timeout=30) as reply:
        found: list[dict[str, Any]] = json.load(reply)["data"]["result"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--dashboard", default="fleet", choices=sorted(path.stem for path in DASHBOARDS.glob("*.json")))
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--output", type=Path, default=Path("dashboard.png"))
    given = parser.parse_args()
    document = json.loads((DASHBOARDS / f"{given.dashboard}.json").read_text())
    panels = [panel for panel in document["panels"] if panel["type"] in {"timeseries", "state-timeline", "stat"}]
    rows = -(-len(panels) // COLUMNS)
    figure, axes = plt.subplots(rows, COLUMNS, figsize=(5 * COLUMNS, 2.4 * rows), layout="constrained", squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.axis("off")
    for axis, panel in zip(axes.flat, panels, strict=False):
        axis.set_title(panel["title"], fontsize=9)
        axis.tick_params(labelsize=7)
        for target in panel["targets"]:
            query = target["expr"].replace("$__rate_interval", "1m").replace("$camera", ".*")
            for series in ask(given.url, query, given.hours):
                ages_min = [(float(at_s) - time.time()) / 60 for at_s, _ in series["values"]]
                name = " ".join(
                    series["metric"].get(label, "") for label in ("camera", "instance", "stage", "reason", "state")
                )
                axis.plot(ages_min, [float(value) for _, value in series["values"]], label=name.strip(), linewidth=1)
        if axis.lines and any(not line.get_label().startswith("_") for line in axis.lines):
            axis.legend(fontsize=6, loc="upper left")
    figure.supxlabel("minutes", fontsize=8)
    figure.savefig(given.output, dpi=90)
    print(given.output)  # noqa: T201 - it is a script


if __name__ == "__main__":
    main()
