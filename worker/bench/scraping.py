"""The metrics of a running worker, read over HTTP as Prometheus reads them."""

import math
import socket
from collections.abc import Mapping
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

Buckets = Mapping[float, float]
"""How many events took at most so many seconds, by the bound in seconds."""


def free_port() -> int:
    """A port of the loopback interface on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def events(url: str) -> Buckets:
    """How many events of all cameras came within each bound (seconds).

    The time counts from the frame that caused the event. An event's own ``captured_at`` does not serve: it says when
    the face was last seen, which is long past if the verdict was due later.

    Raises:
        httpx.HTTPError: the worker does not answer.
    """
    counts: dict[float, float] = {}
    for family in _scrape(url):
        for sample in family.samples:
            if sample.name == "facestream_event_latency_seconds_bucket":
                bound_s = float(sample.labels["le"])
                counts[bound_s] = counts.get(bound_s, 0.0) + sample.value
    return dict(sorted(counts.items()))


def quantile_s(before: Buckets, after: Buckets, share: float) -> float:
    """The latency in seconds within which ``share`` (0..1) of the events between two readings came.

    Within a bucket it is interpolated linearly. It is infinite if there were no events.
    """
    grown = [(bound_s, count - before.get(bound_s, 0.0)) for bound_s, count in after.items()]
    wanted = share * grown[-1][1] if grown else 0.0
    lower_s = below = 0.0
    for bound_s, count in grown:
        if wanted and count >= wanted:
            if math.isinf(bound_s):
                break
            return round(lower_s + (bound_s - lower_s) * (wanted - below) / (count - below), 3)
        lower_s, below = bound_s, count
    return math.inf


def counters(url: str) -> dict[tuple[str, str], float]:
    """The number of frames by metric and reason, summed over all cameras.

    Raises:
        httpx.HTTPError: the worker does not answer.
    """
    sums: dict[tuple[str, str], float] = {}
    for family in _scrape(url):
        if family.name.startswith("facestream_frames_"):
            for sample in family.samples:
                if sample.name.endswith("_total"):
                    key = family.name.removeprefix("facestream_"), sample.labels.get("reason", "")
                    sums[key] = sums.get(key, 0.0) + sample.value
    return sums


def since(before: Mapping[tuple[str, str], float], after: Mapping[tuple[str, str], float], name: str) -> dict[str, int]:
    """How much the metric ``name`` grew between two results of :func:`counters`, by reason; without zeros."""
    grown = {
        reason: int(value - before.get((key, reason), 0.0)) for (key, reason), value in after.items() if key == name
    }
    return {reason: count for reason, count in grown.items() if count}


def gauge(url: str, name: str, **labels: str) -> float:
    """The sum of the samples of a metric that have all these labels.

    Raises:
        httpx.HTTPError: the worker does not answer.
    """
    return sum(
        float(sample.value)
        for family in _scrape(url)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def _scrape(url: str) -> Any:
    return list(text_string_to_metric_families(httpx.get(url, timeout=5.0).raise_for_status().text))
