"""How this worker is: a status, made from the metrics that it has anyway, and how it gets to Redis."""

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from worker import __version__
from worker.background import BackgroundTask, Heartbeats
from worker.events.consumer.streams import stream_lag
from worker.logs import get_logger
from worker.observer import Observer
from worker.redis.client import REDIS_ERRORS, Client
from worker.redis.errors import reply_of
from worker.redis.keys import fleet_key
from worker.service.health import Health
from worker.service.metrics import PrometheusObserver
from worker.service.status import CameraStatus, DatabaseStatus, WorkerStatus, redis_time
from worker.video.cameras import Cameras
from worker.wire import now_rfc3339, rfc3339

_WINDOW_S: Final = 10.0

_log = get_logger(__name__)


class StatusBoard:
    """Makes the status of this worker. Safe to call from any thread."""

    def __init__(
        self,
        worker_id: str,
        observer: PrometheusObserver,
        health: Health,
        cameras: Cameras,
        epochs: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        self._worker_id = worker_id
        self._observer = observer
        self._health = health
        self._cameras = cameras
        self._epochs = epochs
        self._begun_s = time.monotonic()
        self._process = f"{socket.gethostname()}/{os.getpid()}"
        self._lock = threading.Lock()
        self._readings: list[tuple[float, _Reading]] = []
        self._database: tuple[Callable[[], str], int] | None = None

    def watch_database(self, problem: Callable[[], str], layout: int) -> None:
        """The worker uses a database in this layout; ``problem`` says why it cannot be used now, "" if it can."""
        self._database = problem, layout

    @property
    def worker_id(self) -> str:
        return self._worker_id

    def status(self) -> WorkerStatus:
        reading, now_s = _Reading(self._observer), time.monotonic()
        with self._lock:
            self._readings.append((now_s, reading))
            # Of the readings that are old enough to count from, the newest stays.
            while len(self._readings) > 2 and now_s - self._readings[1][0] >= _WINDOW_S:
                self._readings.pop(0)
            since_s, before = self._readings[0]
        passed_s = max(now_s - since_s, 1e-3)
        obstacles, epochs = self._health.obstacles(), self._epochs()
        return WorkerStatus(
            worker_id=self._worker_id,
            at=now_rfc3339(),
            version=__version__,
            uptime_s=round(now_s - self._begun_s, 1),
            ready=not obstacles,
            reasons=obstacles,
            outbox_events=int(reading.value("facestream_queue_items", queue="outbox")),
            gallery_people=int(reading.value("facestream_gallery_people")),
            gallery_version=int(reading.value("facestream_gallery_version")),
            load=reading.find("facestream_worker_load_ratio"),
            process=self._process,
            warnings=self._health.warnings(),
            database=self._database_status(reading),
            cameras=[
                _camera(camera_id, state, reason, epochs.get(camera_id, 0), before, reading, passed_s)
                for camera_id, (state, reason) in sorted(self._cameras.states().items())
            ],
        )

    def _database_status(self, reading: "_Reading") -> DatabaseStatus | None:
        if self._database is None:
            return None
        problem, layout = self._database[0](), self._database[1]
        if not problem and reading.value("facestream_history_degraded"):
            problem = "past sightings cannot be written now"
        return DatabaseStatus(
            reachable=not problem,
            problem=problem,
            copy_age_s=reading.find("facestream_gallery_lag_seconds"),
            waiting_rows=int(reading.value("facestream_queue_items", queue="history")),
            layout=layout,
        )


class StatusReporter:
    """Puts the status into Redis every few seconds, for ``facestream status``, from a thread of its own."""

    def __init__(
        self,
        client: Client,
        fleet: str,
        board: StatusBoard,
        *,
        heartbeats: Heartbeats | None = None,
        interval_s: float = 2.0,
    ) -> None:
        self._client = client
        self._key = fleet_key(fleet, "status")
        self._board = board
        # Workers of one name, such as two on one machine, must not overwrite each other's report.
        self._field = f"{board.worker_id}:{secrets.token_hex(8)}"
        self._failing = False
        self._task = BackgroundTask("status", self._report, interval_s=interval_s, heartbeats=heartbeats)

    def start(self) -> None:
        self._task.start()

    def close(self) -> None:
        """Takes the status back: this worker is no longer there."""
        self._task.stop(2.0)
        with suppress(*REDIS_ERRORS):
            self._client.hdel(self._key, self._field)

    def _report(self) -> None:
        status = self._board.status()
        try:
            status = status.model_copy(update={"at": rfc3339(redis_time(self._client))})
            self._client.hset(self._key, self._field, status.model_dump_json())
        except REDIS_ERRORS as error:
            if not self._failing:
                _log.info("the status could not be reported", reason=type(error).__name__)
            self._failing = True
        else:
            self._failing = False


class LagReporter:
    """Tells ``observer`` how far each consumer group of ``stream`` lags behind, from a thread of its own; nothing while
    Redis is away."""

    def __init__(
        self,
        client: Client,
        stream: str,
        observer: Observer,
        *,
        heartbeats: Heartbeats | None = None,
        interval_s: float = 10.0,
    ) -> None:
        self._client = client
        self._stream = stream
        self._observer = observer
        self._failing = False
        self._task = BackgroundTask("lag", self._report, interval_s=interval_s, heartbeats=heartbeats)

    def start(self) -> None:
        self._task.start()

    def close(self) -> None:
        """Stops; does not wait for a reply that is outstanding."""
        self._task.stop(1.0)

    def _report(self) -> None:
        try:
            lags = stream_lag(self._client, self._stream)
            self._failing = False
        except REDIS_ERRORS as error:
            lags = {}
            if not self._failing and not self._task.stopping:
                _log.info("the lag of consumer groups is not known", reason=reply_of(error))
            self._failing = True
        self._observer.stream_lag(lags)


class _Reading:
    """All samples of the metrics at one moment, by name and labels."""

    def __init__(self, observer: PrometheusObserver) -> None:
        self.samples: dict[str, list[tuple[dict[str, str], float]]] = {}
        for family in observer.registry.collect():
            for sample in family.samples:
                self.samples.setdefault(sample.name, []).append((sample.labels, sample.value))

    def find(self, name: str, **labels: str) -> float | None:
        """The sum of the samples that have these labels; None where there is none."""
        found = [value for own, value in self.samples.get(name, []) if labels.items() <= own.items()]
        return sum(found) if found else None

    def value(self, name: str, **labels: str) -> float:
        return self.find(name, **labels) or 0.0

    def buckets(self, name: str, **labels: str) -> dict[float, float]:
        """Bound and count of each bucket of a histogram."""
        found = [(own, value) for own, value in self.samples.get(f"{name}_bucket", []) if labels.items() <= own.items()]
        return {float(own["le"]): value for own, value in found}


def _camera(
    camera_id: str, state: str, reason: str, epoch: int, before: _Reading, now: _Reading, passed_s: float
) -> CameraStatus:
    def rate(name: str) -> float:
        return round(max(0.0, now.value(name, camera=camera_id) - before.value(name, camera=camera_id)) / passed_s, 2)

    def rates(name: str) -> dict[str, float]:
        labels = [own for own, _ in now.samples.get(name, []) if own.get("camera") == camera_id]
        found = {own["reason"]: now.value(name, **own) - before.value(name, **own) for own in labels}
        return {reason: round(count / passed_s, 2) for reason, count in found.items() if count > 0}

    def age(name: str) -> float | None:
        at_s = now.find(name, camera=camera_id)
        return None if at_s is None else round(max(0.0, time.time() - at_s), 1)

    latency = "facestream_event_latency_seconds"
    return CameraStatus(
        camera_id=camera_id,
        state=state,
        reason=reason,
        epoch=epoch,
        fps=rate("facestream_frames_read_total"),
        dropped_per_s=rate("facestream_frames_dropped_total"),
        latency_p95_s=_quantile_s(now.buckets(latency, camera=camera_id), 0.95),
        last_frame_age_s=age("facestream_last_frame_timestamp_seconds"),
        last_event_age_s=age("facestream_last_event_timestamp_seconds"),
        drops=rates("facestream_frames_dropped_total"),
        refused=rates("facestream_faces_rejected_total"),
    )


def _quantile_s(buckets: Mapping[float, float], share: float) -> float | None:
    """The bound of the bucket in which the quantile lies; None without an event, or beyond the last bound."""
    total = max(buckets.values(), default=0.0)
    bound = next((bound for bound in sorted(buckets) if total and buckets[bound] >= share * total), None)
    return None if bound is None or bound == float("inf") else bound
