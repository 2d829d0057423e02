"""The text that Prometheus scrapes: the same as that of its own library, scrape after scrape."""

import math

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

from worker.service.metrics import Exposition

disable_created_metrics()  # type: ignore[no-untyped-call]  # as worker.service.metrics does

NUMBERS = (st.floats() | st.integers(-(10**20), 10**20)).map(lambda number: number + 0.0)  # -0.0 becomes 0.0


@given(
    labels=st.lists(st.tuples(st.text(max_size=8), st.sampled_from(["a", "b"])), min_size=1, max_size=5),
    values=st.lists(
        (st.floats() | st.integers(-(10**20), 10**20)).map(lambda number: number + 0.0), min_size=1, max_size=5
    ),
)
def test_the_text_is_that_of_the_library(labels: list[tuple[str, str]], values: list[float]) -> None:
    registry = CollectorRegistry()
    gauge = Gauge("level", "A \\ level\nof two lines", ["place", "kind"], registry=registry)
    counter = Counter("steps", "Steps", ["place", "kind"], registry=registry)
    histogram = Histogram("size", "Sizes", buckets=(0.1, 1, 1e7), registry=registry)
    exposition = Exposition(registry)
    for (place, kind), value in zip(labels, values, strict=False):
        gauge.labels(place, kind).set(value)
        counter.labels(place, kind).inc()
        histogram.observe(value if math.isfinite(value) else 0.0)
        # Each scrape, those of what earlier ones have remembered included.
        assert exposition.encode() == generate_latest(registry)
    gauge.clear()
    assert exposition.encode() == generate_latest(registry)


def test_a_metric_without_labels_or_series_is_told_of() -> None:
    registry = CollectorRegistry()
    Gauge("alone", "Alone", registry=registry).set(0.1)
    Counter("never", "Never", ["reason"], registry=registry)
    assert Exposition(registry).encode() == generate_latest(registry)
