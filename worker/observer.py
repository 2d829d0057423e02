"""The observer that stages call. It says what they report; who listens is decided elsewhere.

Stages know only :class:`Observer`, which does nothing. A worker gives them
:class:`worker.service.metrics.PrometheusObserver`. The hot loop holds no counters of its own.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, Literal

from worker.types import Frame

SourceState = Literal["connecting", "streaming", "stalled", "waiting", "ended", "failed"]
SOURCE_STATES: Final[tuple[SourceState, ...]] = (
    "connecting", "streaming", "stalled", "waiting", "ended", "failed",
)  # fmt: skip
Stage = Literal["decode", "detect", "follow", "track", "align", "embed", "search", "decide", "publish"]


class Observer:
    """What stages report. This class does nothing, so a stage can be used and tested without metrics."""

    def frame_read(self, camera_id: str) -> None:
        """A frame left the decoder."""

    def frame_dropped(self, camera_id: str, reason: str, count: int = 1) -> None:
        """``count`` frames were dropped unprocessed (``superseded``, ``stale``, ``undecodable``, ...)."""

    def frame_skipped(self, camera_id: str, reason: str) -> None:
        """A frame was passed over: a search in it would tell nothing new, or was worth least under load
        (``interval``, ``no_motion``, ``load``), or it had come too late (``late``)."""

    def faces_detected(self, camera_id: str, count: int) -> None:
        """``count`` faces were found in a frame."""

    def face_rejected(self, camera_id: str, reason: str, count: int = 1) -> None:
        """``count`` faces were not embedded, for ``reason`` (``too_small``, ``blurred``, ...)."""

    def track_ended(self, camera_id: str, outcome: str) -> None:
        """A track ended as ``matched``, ``below_threshold``, ``ambiguous``, ``too_short``, ..."""

    def face_quality(self, camera_id: str, quality: float) -> None:
        """A face was judged, 0..1; it may or may not be embedded afterwards."""

    def verdict(self, camera_id: str, *, named: bool, similarity: float, margin: float | None) -> None:
        """A sighting ended with this cosine to the nearest person, who is nearer than the next one by ``margin``."""

    def record_dropped(self, reason: str, count: int = 1) -> None:
        """``count`` records of past sightings were dropped (``buffer_full``, ``unwritten``)."""

    def history_degraded(self, degraded: bool) -> None:
        """``degraded``: past sightings should be recorded, but are not at the moment."""

    def database_statement(self, seconds: float) -> None:
        """The database that a fleet shares has answered a statement after this time."""

    def database_connections(self, change: int) -> None:
        """So many more (or, below 0, fewer) connections to that database are open."""

    def evidence_written(self) -> None:
        """The pictures of a sighting were stored."""

    def evidence_dropped(self, reason: str) -> None:
        """The pictures of a sighting were dropped (``buffer_full``, ``unwritten``)."""

    def shadow_verdict(self, camera_id: str, outcome: str) -> None:
        """A track ended for which a second model was asked as well (``agree``, ``only_primary``, ``only_shadow``,
        ``different``)."""

    def batch(self, stage: Stage, size: int) -> None:
        """A stage was run on ``size`` items at once."""

    def second_pass(self, stage: Stage) -> None:
        """A stage on a device had too little room for a batch, and did it once more with more room."""

    def queue_depth(self, queue: str, depth: int) -> None:
        """``depth`` items wait in ``queue`` (``outbox``, or a camera's id)."""

    def event_published(self, camera_id: str, event_type: str) -> None:
        """Redis has accepted an event."""

    def event_dropped(self, camera_id: str, reason: str) -> None:
        """An event was dropped (``buffer_full``, ``expired``, ``stale_epoch``, ...)."""

    def outbox(self, events: int, size_bytes: int, oldest_s: float, degraded: bool) -> None:
        """The events that wait for Redis. ``degraded``: they are in memory, and should be on disk."""

    def event_latency(self, camera_id: str, seconds: float) -> None:
        """The seconds from the arrival of a frame until Redis accepted its event."""

    def sink_up(self, up: bool) -> None:
        """Whether Redis accepted events, or would have, at the last try."""

    def stream_lag(self, lags: Mapping[str, int]) -> None:
        """How many entries each consumer group has not acknowledged; a group that is not named is gone or unknown."""

    def entry_refused(self, kind: str) -> None:
        """An entry of Redis is not valid, and was set aside: the definition of a ``camera``, the ``state`` of its
        sightings, the ``fence`` of its events."""

    def gallery_size(self, people: int, samples: int, version: int) -> None:
        """The size and version of the gallery that is searched now."""

    def gallery_current(self) -> None:
        """It was seen just now that the gallery which is searched is the newest that the fleet shares."""

    def engine_loaded(self, stage: Stage, engine: str, device: str, precision: str) -> None:
        """The network of ``stage`` (``detect``, ``embed``) runs on ``engine``, on ``CPU`` or ``GPU``, in
        ``precision``."""

    def lease_gained(self, camera_id: str, epoch: int) -> None:
        """The camera belongs to this worker from ``epoch`` on."""

    def lease_ended(self, camera_id: str) -> None:
        """The camera no longer belongs to this worker."""

    def lease_lost(self, reason: str) -> None:
        """A camera that was read must be given up (``superseded``, ``rebalanced``, ``removed``, ...)."""

    def leases_renewed(self, owned: int) -> None:
        """Redis confirmed just now that ``owned`` cameras belong to this worker."""

    def fleet_seen(self, workers: int, cameras: int, unowned: int) -> None:
        """The fleet at the last renewal: live workers, cameras to read, and cameras that no worker reads."""

    def worker_load(self, ratio: float) -> None:
        """The share of time that the pipeline is busy, 0..1."""

    def look_late(self, camera_id: str) -> None:
        """A look at a moving picture came so late that a short visit may have been missed."""

    def looks(self, gaps_s: Mapping[str, float], carried: float) -> None:
        """The usual longest time between two looks at each camera, s; how many cameras could be followed in full."""

    def source_state(self, camera_id: str, state: SourceState) -> None:
        """A source changed its state."""

    def decoder_died(self, camera_id: str, fate: str) -> None:
        """The process that decodes a camera ended as it should not: ``crashed``, ``killed``, ``hung``, ``memory``."""

    def camera_added(self, camera_id: str) -> None:
        """The worker reads this camera from now on."""

    def camera_removed(self, camera_id: str) -> None:
        """The worker no longer reads this camera."""

    def rules_asked(self, alerts: int) -> None:
        """The rules of the console were asked about an event, which raised so many ``alerts``."""

    def alert_ended(self, outcome: str, seconds: float) -> None:
        """A receiver was told, ``seconds`` after the alert was raised: it was ``delivered``, ``postponed``, or
        ``given_up``."""

    def alerts_waiting(self, count: int, oldest_s: float) -> None:
        """So many alerts of all consoles are still to be delivered, the oldest since ``oldest_s`` seconds."""

    def config_reloaded(self, outcome: str) -> None:
        """The configuration was read again: ``taken``, ``restart_needed`` (for a part of it), or ``refused``."""

    @contextmanager
    def frames(self, frames: Sequence[Frame]) -> Iterator[None]:  # noqa: ARG002
        """Frames the passage of a batch through the stages."""
        yield

    def close(self) -> None:
        """Nothing more will be reported."""

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[None]:  # noqa: ARG002
        """Times the block as one run of ``stage``."""
        yield

    def stage_took(self, stage: Stage, seconds: float) -> None:
        """A run of ``stage`` in another process took so long."""
