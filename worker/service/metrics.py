"""Every Prometheus metric, and the text in which Prometheus reads them."""

import math
import platform
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from worker import __version__
from worker.observer import SOURCE_STATES, Observer, SourceState, Stage

# When each series was made tells nothing here, and costs a sixth of a scrape.
disable_created_metrics()  # type: ignore[no-untyped-call]

_STAGE_BUCKETS_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.6, 1.2, 2.5, 5.0)
_LATENCY_BUCKETS_S: Final = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 30.0, 60.0)
_SIMILARITY_BUCKETS: Final = (0.0, 0.1, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.9)
_MARGIN_BUCKETS: Final = (0.0, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7)
_QUALITY_BUCKETS: Final = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_BATCH_BUCKETS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_DATABASE_BUCKETS: Final = (0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 30.0)


_LAST_EVENTS_S: Final = 3600.0
"""The last events of a removed camera come within this time, or leave series behind."""
_MOST_GROUPS: Final = 100
_LONGEST_GROUP: Final = 100
_WITH_REASONS: Final = frozenset({"dropped frames", "dropped events", "skipped"})
_Metric = TypeVar("_Metric", Counter, Gauge, Histogram)


class PrometheusObserver(Observer):
    """Keeps what stages report as Prometheus metrics; ``docs/metrics.md`` describes each.

    ``registry`` holds the metrics of this observer and of the process, and nothing else.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self._by_camera: list[Counter | Gauge | Histogram] = []
        self._removed: OrderedDict[str, float] = OrderedDict()
        self._gone: dict[str, int] = {}
        self._sweeping = threading.Lock()
        self.registry.register(_Sweep(self._sweep))
        self._frames_read = self._counter("frames_read", "Frames that left the decoder", "camera")
        self._frames_dropped = self._counter("frames_dropped", "Frames given up unprocessed", "camera", "reason")
        self._frames_skipped = self._counter("frames_skipped", "Frames not worth searching", "camera", "reason")
        self._faces_detected = self._counter("faces_detected", "Faces found in frames", "camera")
        self._faces_rejected = self._counter("faces_rejected", "Faces that were not embedded", "camera", "reason")
        self._tracks_ended = self._counter("tracks_ended", "Tracks that ended, by outcome", "camera", "reason")
        self._face_quality = self._histogram(
            "face_quality", "Quality of the faces that were judged", _QUALITY_BUCKETS, "camera"
        )
        self._match_similarity = self._histogram(
            "match_similarity", "Cosine of a sighting to the nearest person", _SIMILARITY_BUCKETS, "camera", "named"
        )
        self._match_margin = self._histogram(
            "match_margin", "How much nearer that person is than the next", _MARGIN_BUCKETS, "camera", "named"
        )
        self._records_dropped = self._counter("records_dropped", "Records of past sightings given up", "reason")
        self._history_degraded = self._gauge(
            "history_degraded", "1 if past sightings are not recorded though they should be"
        )
        self._database_s = self._histogram(
            "database_statement_seconds", "Time until the database of the fleet answered a statement", _DATABASE_BUCKETS
        )
        self._threads_silent = self._gauge("threads_silent", "Threads that have shown no sign of life for too long")
        self._database_connections = self._gauge("database_connections", "Open connections to that database")
        self._evidence_written = self._counter("evidence_written", "Times pictures of a sighting were stored")
        self._evidence_dropped = self._counter("evidence_dropped", "Pictures of sightings given up", "reason")
        self._shadow_verdicts = self._counter(
            "shadow_verdicts", "Tracks on which two models were asked", "camera", "outcome"
        )
        self._events_published = self._counter("events_published", "Events that Redis accepted", "camera", "type")
        self._last_event_s = self._gauge(
            "last_event_timestamp_seconds", "Unix time at which Redis accepted a camera's last event", "camera"
        )
        self._events_dropped = self._counter("events_dropped", "Events given up", "camera", "reason")
        self._second_passes = self._counter("second_passes", "Batches that a device did again with more room", "stage")
        self._stage_s = self._histogram(
            "stage_duration_seconds", "Duration of one run of a stage", _STAGE_BUCKETS_S, "stage"
        )
        self._batch_items = self._histogram("batch_items", "Items in one run of a stage", _BATCH_BUCKETS, "stage")
        self._latency_s = self._histogram(
            "event_latency_seconds", "From a frame's arrival to its event in Redis", _LATENCY_BUCKETS_S, "camera"
        )
        self._queue_items = self._gauge("queue_items", "Items that wait in a queue", "queue")
        self._outbox_events = self._gauge("outbox_events", "Events that wait for Redis")
        self._outbox_bytes = self._gauge("outbox_bytes", "Their size")
        self._outbox_oldest_s = self._gauge("outbox_oldest_seconds", "Age of the oldest of them")
        self._outbox_degraded = self._gauge("outbox_degraded", "1 if they wait in memory though they should be on disk")
        self._sink_up = self._gauge("sink_up", "1 if Redis took events when last tried, else 0")
        self._stream_lag = self._gauge("stream_lag_entries", "Entries that a group has not acknowledged", "group")
        self._entries_refused = self._counter("entries_refused", "Entries of Redis that are not valid", "kind")
        self._gallery_people = self._gauge("gallery_people", "People in the gallery that is searched")
        self._gallery_samples = self._gauge("gallery_samples", "Faces in the gallery that is searched")
        self._gallery_version = self._gauge("gallery_version", "Version of the gallery that is searched")
        self._consents = self._gauge(
            "gallery_consents", "People whose consent ends within 30 days, or is over", "state"
        )
        self.watch_consents(lambda: (0, 0))
        self._gallery_alike = self._gauge(
            "gallery_alike_pairs_ratio", "Share of the gallery's pairs of people that reach the threshold"
        )
        self._gallery_alike_expected = self._gauge(
            "gallery_alike_pairs_expected_ratio", "Share of pairs of people in the evidence that reach it"
        )
        self._gallery_resemble = self._gauge(
            "gallery_people_resemble", "1 if the people resemble each other clearly more than those in the evidence"
        )
        self._gallery_lag_s = self._gauge(
            "gallery_lag_seconds", "Time since the gallery was last known to be the newest that the fleet shares"
        )
        self._source_state = self._gauge(
            "source_state", "1 for the state that a source is in, else 0", "camera", "state"
        )
        self._decoder_deaths = self._counter(
            "decoder_deaths", "Processes of a camera's decoder that ended as they should not", "camera", "fate"
        )
        self._last_frame_s = self._gauge("last_frame_timestamp_seconds", "Unix time of a camera's last frame", "camera")
        self._cameras_owned = self._gauge("cameras_owned", "Cameras whose lease this worker holds")
        self._camera_epoch = self._gauge("camera_epoch", "Epoch of a camera's lease", "camera")
        self._leases_lost = self._counter("leases_lost", "Cameras that were given up, by reason", "reason")
        self._lease_beat_age_s = self._gauge("lease_beat_age_seconds", "Time since Redis last renewed the leases")
        self._fleet_workers = self._gauge("fleet_workers", "Live workers of the fleet")
        self._fleet_cameras = self._gauge("fleet_cameras", "Cameras that the fleet is to read")
        self._fleet_cameras_unowned = self._gauge("fleet_cameras_unowned", "Cameras of the fleet that nobody reads")
        self._worker_load_ratio = self._gauge("worker_load_ratio", "Share of time that the pipeline is busy")
        self._late_looks = self._counter("late_looks", "Looks so late that a visit may have been missed", "camera")
        self._look_gap_s = self._gauge("look_gap_seconds", "Usual longest time between two looks at a camera", "camera")
        self._cameras_carried = self._gauge("cameras_carried", "Cameras that this worker could follow in full")
        self._config_reloads = self._counter("config_reloads", "Times the configuration was read again", "outcome")
        self._engine_info = self._gauge(
            "engine_info", "1, with what runs a stage's network as labels", "stage", "engine", "device", "precision"
        )
        self._engines: dict[Stage, tuple[str, str, str]] = {}
        build = self._gauge("build_info", "1, with the versions that run as labels", "version", "python")
        build.labels(__version__, platform.python_version()).set(1)
        ProcessCollector(namespace="facestream", registry=self.registry)

    def frame_read(self, camera_id: str) -> None:
        self._frames_read.labels(camera_id).inc()
        self._last_frame_s.labels(camera_id).set(time.time())

    def frame_dropped(self, camera_id: str, reason: str, count: int = 1) -> None:
        self._frames_dropped.labels(camera_id, reason).inc(count)

    def frame_skipped(self, camera_id: str, reason: str) -> None:
        self._frames_skipped.labels(camera_id, reason).inc()

    def faces_detected(self, camera_id: str, count: int) -> None:
        self._faces_detected.labels(camera_id).inc(count)

    def face_rejected(self, camera_id: str, reason: str, count: int = 1) -> None:
        self._faces_rejected.labels(camera_id, reason).inc(count)

    def track_ended(self, camera_id: str, outcome: str) -> None:
        self._tracks_ended.labels(camera_id, outcome).inc()

    def face_quality(self, camera_id: str, quality: float) -> None:
        self._face_quality.labels(camera_id).observe(quality)

    def verdict(self, camera_id: str, *, named: bool, similarity: float, margin: float | None) -> None:
        answer = "yes" if named else "no"
        # The sum of a histogram must not fall.
        self._match_similarity.labels(camera_id, answer).observe(max(similarity, 0.0))
        if margin is not None:
            self._match_margin.labels(camera_id, answer).observe(max(margin, 0.0))

    def record_dropped(self, reason: str, count: int = 1) -> None:
        self._records_dropped.labels(reason).inc(count)

    def history_degraded(self, degraded: bool) -> None:
        self._history_degraded.set(degraded)

    def database_statement(self, seconds: float) -> None:
        self._database_s.observe(seconds)

    def database_connections(self, change: int) -> None:
        self._database_connections.inc(change)

    def evidence_written(self) -> None:
        self._evidence_written.inc()

    def evidence_dropped(self, reason: str) -> None:
        self._evidence_dropped.labels(reason).inc()

    def shadow_verdict(self, camera_id: str, outcome: str) -> None:
        self._shadow_verdicts.labels(camera_id, outcome).inc()

    def batch(self, stage: Stage, size: int) -> None:
        self._batch_items.labels(stage).observe(size)

    def queue_depth(self, queue: str, depth: int) -> None:
        self._queue_items.labels(queue).set(depth)

    def event_published(self, camera_id: str, event_type: str) -> None:
        self._events_published.labels(camera_id, event_type).inc()
        self._last_event_s.labels(camera_id).set(time.time())

    def second_pass(self, stage: Stage) -> None:
        self._second_passes.labels(stage).inc()

    def event_dropped(self, camera_id: str, reason: str) -> None:
        self._events_dropped.labels(camera_id, reason).inc()

    def outbox(self, events: int, size_bytes: int, oldest_s: float, degraded: bool) -> None:
        self._outbox_events.set(events)
        self._outbox_bytes.set(size_bytes)
        self._outbox_oldest_s.set(oldest_s)
        self._outbox_degraded.set(degraded)

    def event_latency(self, camera_id: str, seconds: float) -> None:
        self._latency_s.labels(camera_id).observe(seconds)

    def sink_up(self, up: bool) -> None:
        self._sink_up.set(up)

    def stream_lag(self, lags: Mapping[str, int]) -> None:
        self._stream_lag.clear()
        # Whoever can write to Redis can make groups.
        for group, entries in sorted(lags.items(), key=lambda lag: -lag[1])[:_MOST_GROUPS]:
            self._stream_lag.labels(group[:_LONGEST_GROUP]).set(entries)

    def entry_refused(self, kind: str) -> None:
        self._entries_refused.labels(kind).inc()

    def gallery_size(self, people: int, samples: int, version: int) -> None:
        self._gallery_people.set(people)
        self._gallery_samples.set(samples)
        self._gallery_version.set(version)

    def watch_consents(self, measure: Callable[[], tuple[int, int]]) -> None:
        """``measure`` is asked at each scrape: how many people's consent ends within 30 days, and is over."""
        self._consents.labels("ending").set_function(lambda: float(measure()[0]))
        self._consents.labels("over").set_function(lambda: float(measure()[1]))

    def watch_resemblance(self, measure: Callable[[], tuple[float, float, bool] | None]) -> None:
        """``measure`` is asked at each scrape. It gives the share of the gallery's pairs of people that reach the
        threshold, that of the evidence (0..1), and whether they resemble each other too much; or None."""

        def value(place: int) -> Callable[[], float]:
            return lambda: math.nan if (found := measure()) is None else float(found[place])

        self._gallery_alike.set_function(value(0))
        self._gallery_alike_expected.set_function(value(1))
        self._gallery_resemble.set_function(value(2))

    def watch_threads(self, silent: Callable[[], int]) -> None:
        """``silent`` is asked at each scrape: how many threads show no sign of life."""
        self._threads_silent.set_function(silent)

    def gallery_current(self) -> None:
        seen_s = time.monotonic()
        self._gallery_lag_s.set_function(lambda: time.monotonic() - seen_s)

    def engine_loaded(self, stage: Stage, engine: str, device: str, precision: str) -> None:
        before, now = self._engines.get(stage), (engine, device, precision)
        if before is not None and before != now:
            self._engine_info.remove(stage, *before)
        self._engines[stage] = now
        self._engine_info.labels(stage, *now).set(1)

    def lease_gained(self, camera_id: str, epoch: int) -> None:
        self._camera_epoch.labels(camera_id).set(epoch)

    def lease_ended(self, camera_id: str) -> None:
        self._camera_epoch.remove(camera_id)

    def lease_lost(self, reason: str) -> None:
        self._leases_lost.labels(reason).inc()

    def leases_renewed(self, owned: int) -> None:
        renewed_s = time.monotonic()
        self._cameras_owned.set(owned)
        # The age must grow while renewals fail, so it is taken when it is read.
        self._lease_beat_age_s.set_function(lambda: time.monotonic() - renewed_s)

    def fleet_seen(self, workers: int, cameras: int, unowned: int) -> None:
        self._fleet_workers.set(workers)
        self._fleet_cameras.set(cameras)
        self._fleet_cameras_unowned.set(unowned)

    def look_late(self, camera_id: str) -> None:
        self._late_looks.labels(camera_id).inc()

    def looks(self, gaps_s: Mapping[str, float], carried: float) -> None:
        for camera_id, gap_s in gaps_s.items():
            self._look_gap_s.labels(camera_id).set(gap_s)
        self._cameras_carried.set(carried)

    def worker_load(self, ratio: float) -> None:
        self._worker_load_ratio.set(ratio)

    def source_state(self, camera_id: str, state: SourceState) -> None:
        for known in SOURCE_STATES:
            self._source_state.labels(camera_id, known).set(known == state)

    def decoder_died(self, camera_id: str, fate: str) -> None:
        self._decoder_deaths.labels(camera_id, fate).inc()

    def config_reloaded(self, outcome: str) -> None:
        self._config_reloads.labels(outcome).inc()

    def camera_added(self, camera_id: str) -> None:
        self._removed.pop(camera_id, None)

    def camera_removed(self, camera_id: str) -> None:
        # Its last events may be delivered later, and make series anew: those go before the next look.
        self._removed[camera_id] = time.monotonic()
        self._removed.move_to_end(camera_id)
        self._sweep()

    def _sweep(self) -> None:
        """Takes away the series of removed cameras: cameras come and go, and a worker stays for months."""
        with self._sweeping:
            removed = dict(self._removed)
            if not removed:
                return
            self._sum(self._gone, lambda camera_id: camera_id in removed)
            for camera_id, at_s in removed.items():
                for metric in self._by_camera:
                    metric.remove_by_labels({"camera": camera_id})
                self._queue_items.remove(camera_id)
                if time.monotonic() - at_s > _LAST_EVENTS_S:
                    self._removed.pop(camera_id, None)

    def _sum(self, sums: dict[str, int], wanted: Callable[[str], bool]) -> None:
        for name, counter in self._counted().items():
            for labels, value in _totals(counter):
                if wanted(labels["camera"]):
                    key = f"{name} {labels['reason'] if name in _WITH_REASONS else ''}"
                    sums[key] = sums.get(key, 0) + value

    def _counted(self) -> dict[str, Counter]:
        """What the summary of a run tells, so that it outlives its cameras."""
        return {
            "frames": self._frames_read,
            "faces": self._faces_detected,
            "tracks": self._tracks_ended,
            "events": self._events_published,
            "dropped frames": self._frames_dropped,
            "dropped events": self._events_dropped,
            "skipped": self._frames_skipped,
        }

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[None]:
        begun_s = time.perf_counter()
        try:
            yield
        finally:
            self._stage_s.labels(stage).observe(time.perf_counter() - begun_s)

    def stage_took(self, stage: Stage, seconds: float) -> None:
        self._stage_s.labels(stage).observe(seconds)

    def summary(self) -> dict[str, Any]:
        """Totals so far: ``frames`` (read), ``faces``, ``tracks`` (ended), ``events``, ``dropped`` and ``skipped``
        {reason: n}.

        ``dropped`` holds frames and events alike; their reasons differ.
        """
        with self._sweeping:
            sums = dict(self._gone)
            self._sum(sums, lambda _camera_id: True)

        def by_reason(*names: str) -> dict[str, int]:
            found: dict[str, int] = {}
            for key, value in sums.items():
                name, _, reason = key.rpartition(" ")
                if name in names:
                    found[reason] = found.get(reason, 0) + value
            return found

        return {
            **{name: sums.get(f"{name} ", 0) for name in ("frames", "faces", "tracks", "events")},
            "dropped": by_reason("dropped frames", "dropped events"),
            "skipped": by_reason("skipped"),
        }

    def _counter(self, name: str, description: str, *labels: str) -> Counter:
        counter = Counter(f"facestream_{name}", description, labels, registry=self.registry)
        return self._note(counter, labels)

    def _gauge(self, name: str, description: str, *labels: str) -> Gauge:
        return self._note(Gauge(f"facestream_{name}", description, labels, registry=self.registry), labels)

    def _histogram(self, name: str, description: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        histogram = Histogram(f"facestream_{name}", description, labels, buckets=buckets, registry=self.registry)
        return self._note(histogram, labels)

    def _note(self, metric: _Metric, labels: tuple[str, ...]) -> _Metric:
        if "camera" in labels:
            self._by_camera.append(metric)
        return metric


def _totals(counter: Counter) -> list[tuple[dict[str, str], int]]:
    samples = (sample for family in counter.collect() for sample in family.samples)
    return [(sample.labels, int(sample.value)) for sample in samples if sample.name.endswith("_total")]


class _Sweep(Collector):
    """Has no metrics of its own: the registry asks it first, before it collects the others."""

    def __init__(self, sweep: Callable[[], None]) -> None:
        self._sweep = sweep

    def collect(self) -> Iterable[Metric]:
        self._sweep()
        return ()


CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
_LINES_KEPT: Final = 200_000
_ESCAPES: Final = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


class Exposition:
    """Encodes ``registry``; safe to call from any thread."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._lock = threading.Lock()
        self._beginnings: dict[tuple[str, ...], str] = {}

    def encode(self) -> bytes:
        """All metrics in the text format 0.0.4."""
        with self._lock:
            return "".join(self._lines()).encode()

    def _lines(self) -> list[str]:
        if len(self._beginnings) > _LINES_KEPT:  # cameras come and go
            self._beginnings.clear()
        known, lines = self._beginnings, []
        for family in self._registry.collect():
            name = f"{family.name}_total" if family.type == "counter" else family.name
            help_text = family.documentation.replace("\\", r"\\").replace("\n", r"\n")
            lines.append(f"# HELP {name} {help_text}\n# TYPE {name} {family.type}\n")
            for sample in family.samples:
                key = (sample.name, *sample.labels.values())
                beginning = known.get(key)
                if beginning is None:
                    beginning = known[key] = _beginning(sample.name, sample.labels)
                lines.append(f"{beginning}{_number(sample.value)}\n")
        return lines


def _number(value: float) -> str:
    # Most are counts, for which the library's function is slow.
    if abs(value) < 1e6 and value == (whole := int(value)):
        return f"{whole}.0"
    text: str = floatToGoString(value)  # type: ignore[no-untyped-call]
    return text


def _beginning(name: str, labels: dict[str, str]) -> str:
    if not labels:
        return f"{name} "
    text = ",".join(f'{label}="{value.translate(_ESCAPES)}"' for label, value in sorted(labels.items()))
    return f"{name}{{{text}}} "
