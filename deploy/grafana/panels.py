"""Panels of Grafana dashboards in few words: a title, queries with the legends of their series, a unit."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal

Kind = Literal["stat", "timeseries", "table", "state-timeline", "heatmap"]
Unit = Literal["short", "s", "percentunit", "reqps", "bytes", "dateTimeFromNow", "none"]

COLUMNS: Final = 24
_DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
_HEIGHTS: Final[dict[Kind, int]] = {"stat": 4, "timeseries": 8, "table": 7, "state-timeline": 8, "heatmap": 8}
_GOOD, _BAD = "green", "red"


@dataclass(frozen=True)
class Query:
    """PromQL, and the legend of each of its series (``{{label}}`` stands for a label's value)."""

    expr: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """One panel.

    ``bad_from``: from this value on it is red; else green. ``good``: any value is good, and 0 is bad.
    ``columns``: of a table, the labels to show.
    """

    title: str
    kind: Kind
    queries: tuple[Query, ...]
    unit: Unit = "short"
    width: int = 12
    bad_from: float | None = None
    good: bool = False
    maximum: float | None = None
    columns: tuple[str, ...] = ()
    help: str = ""


def panel(title: str, kind: Kind, *queries: str | tuple[str, str], **settings: Any) -> Panel:
    """A panel of queries, each an expression, or an expression and its legend."""
    made = tuple(Query(query) if isinstance(query, str) else Query(*query) for query in queries)
    return Panel(title, kind, made, **settings)


def dashboard(
    uid: str, title: str, rows: Iterable[tuple[str, Iterable[Panel]]], variables: Iterable[dict[str, Any]] = ()
) -> dict[str, Any]:
    """The JSON model of a dashboard whose ``rows`` have a title and panels, laid out from left to right."""
    panels: list[dict[str, Any]] = []
    y = 0
    for heading, members in rows:
        panels.append(_row(len(panels) + 1, heading, y))
        y += 1
        x = height = 0
        for member in members:
            if x + member.width > COLUMNS:
                x, y, height = 0, y + height, 0
            place = {"x": x, "y": y, "w": member.width, "h": _HEIGHTS[member.kind]}
            panels.append(_panel(len(panels) + 1, member, place))
            x, height = x + member.width, max(height, place["h"])
        y += height
    return {
        "uid": uid,
        "title": title,
        "tags": ["facestream"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "5s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [_DATASOURCE_VARIABLE, *variables]},
        "links": [
            {"type": "dashboards", "tags": ["facestream"], "title": "facestream", "asDropdown": True, "keepTime": True}
        ],
        "panels": panels,
    }


def label_variable(name: str, metric: str) -> dict[str, Any]:
    """A choice among the values that the label ``name`` has on ``metric``, several or all of them."""
    query = f"label_values({metric}, {name})"
    return {
        "name": name, "type": "query", "datasource": _DATASOURCE, "definition": query,
        "query": {"query": query, "refId": "A"}, "refresh": 2, "sort": 1, "multi": True, "includeAll": True,
        "allValue": ".*", "current": {"text": "All", "value": "$__all"},
    }  # fmt: skip


_DATASOURCE_VARIABLE: Final = {
    "name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus",
    "current": {"text": "Prometheus", "value": "prometheus"},
}  # fmt: skip


def _row(number: int, title: str, y: int) -> dict[str, Any]:
    place = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
    return {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": place, "panels": []}


def _panel(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    made: dict[str, Any] = {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.help,
        "datasource": _DATASOURCE,
        "gridPos": place,
        "targets": [_target(panel.kind, letter, query) for letter, query in zip("ABCDEFGH", panel.queries)],  # noqa: B905
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _options(panel),
    }
    if panel.kind == "table":
        made["transformations"] = [
            {"id": "filterFieldsByName", "options": {"include": {"names": [*panel.columns, "Value"]}}},
            {"id": "organize", "options": {"indexByName": {name: i for i, name in enumerate(panel.columns)}}},
        ]
    return made


def _target(kind: Kind, letter: str, query: Query) -> dict[str, Any]:
    return {
        "refId": letter, "datasource": _DATASOURCE, "expr": query.expr, "legendFormat": query.legend or "__auto",
        "instant": kind in {"stat", "table"}, "range": kind not in {"stat", "table"},
        "format": {"table": "table", "heatmap": "heatmap"}.get(kind, "time_series"),
    }  # fmt: skip


def _defaults(panel: Panel) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": _GOOD, "value": None}]
    if panel.bad_from is not None:
        steps.append({"color": _BAD, "value": panel.bad_from})
    if panel.good:
        steps = [{"color": _BAD, "value": None}, {"color": _GOOD, "value": 0.001}]
    defaults: dict[str, Any] = {"unit": panel.unit, "thresholds": {"mode": "absolute", "steps": steps}}
    if panel.kind in {"stat", "state-timeline"}:
        defaults["color"] = {"mode": "thresholds"}
    if panel.kind == "timeseries":
        defaults |= {"min": 0, "custom": {"fillOpacity": 10, "spanNulls": False}}
    if panel.maximum is not None:
        defaults["max"] = panel.maximum
    return defaults


def _options(panel: Panel) -> dict[str, Any]:
    if panel.kind == "stat":
        return {
            "reduceOptions": {"calcs": ["lastNotNull"], "values": False}, "colorMode": "background",
            "graphMode": "none", "textMode": "value",
        }  # fmt: skip
    if panel.kind == "timeseries":
        return {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}}
    if panel.kind == "state-timeline":
        return {"showValue": "never", "mergeValues": True, "legend": {"displayMode": "list", "placement": "bottom"}}
    if panel.kind == "heatmap":
        return {"calculate": False, "yAxis": {"unit": panel.unit}, "color": {"mode": "scheme", "scheme": "Blues"}}
    return {"showHeader": True, "cellHeight": "sm"}
