"""The observer that stages call: what they report, without a word on who listens.

Stages know :class:`Observer` only, which does nothing. A worker hands them
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
    """What stages report. The base does nothing, so that a stage needs no metrics to be used or tested."""

    def frame_read(self, camera_id: str) -> None:
        """A frame left the decoder."""

    def frame_dropped(self, camera_id: str, reason: str, count: int = 1) -> None:
        """``count`` frames were given up unprocessed (``superseded``, ``stale``, ``undecodable``, ...)."""

    def frame_skipped(self, camera_id: str, reason: str) -> None:
        """A frame was passed over because searching it would tell nothing new, or was worth least under load
        (``interval``, ``no_motion``, ``load``)."""

    def faces_detected(self, camera_id: str, count: int) -> None:
        """``count`` faces were found in a frame."""

    def face_rejected(self, camera_id: str, reason: str, count: int = 1) -> None:
        """``count`` faces were not embedded, for ``reason`` (``too_small``, ``blurred``, ...)."""

    def track_ended(self, camera_id: str, outcome: str) -> None:
        """A track ended as ``matched``, ``below_threshold``, ``ambiguous``, ``too_short``, ..."""

    def face_quality(self, camera_id: str, quality: float) -> None:
        """A face was judged, 0..1, whether it was then embedded or not."""

    def verdict(self, camera_id: str, *, named: bool, similarity: float, margin: float | None) -> None:
        """A sighting ended with this cosine to the nearest person, and this much nearer than the next one."""

    def record_dropped(self, reason: str, count: int = 1) -> None:
        """``count`` records of past sightings were given up (``buffer_full``, ``unwritten``)."""

    def history_degraded(self, degraded: bool) -> None:
        """Whether past sightings should be recorded and are not at the moment."""

    def evidence_written(self) -> None:
        """The pictures of a sighting were stored."""

    def evidence_dropped(self, reason: str) -> None:
        """The pictures of a sighting were given up (``buffer_full``, ``unwritten``)."""

    def shadow_verdict(self, camera_id: str, outcome: str) -> None:
        """A track ended on which a second model was asked as well (``agree``, ``only_primary``, ``only_shadow``,
        ``different``)."""

    def batch(self, stage: Stage, size: int) -> None:
        """A stage was run on ``size`` items at once."""

    def queue_depth(self, queue: str, depth: int) -> None:
        """``depth`` items wait in ``queue`` (``outbox``, or a camera's id)."""

    def event_published(self, camera_id: str, event_type: str) -> None:
        """Redis has accepted an event."""

    def event_dropped(self, camera_id: str, reason: str) -> None:
        """An event was given up (``buffer_full``, ``expired``, ``stale_epoch``, ...)."""

    def outbox(self, events: int, size_bytes: int, oldest_s: float, degraded: bool) -> None:
        """What waits for Redis; ``degraded``: in memory, though it should be on disk."""

    def event_latency(self, camera_id: str, seconds: float) -> None:
        """From the frame's arrival to its event's acceptance by Redis."""

    def sink_up(self, up: bool) -> None:
        """Whether Redis took, or would take, events when last tried."""

    def stream_lag(self, lags: Mapping[str, int]) -> None:
        """Entries that each consumer group has not acknowledged; a group that is not named is gone, or not known."""

    def gallery_size(self, people: int, samples: int, version: int) -> None:
        """The gallery that is searched now."""

    def gallery_current(self) -> None:
        """The gallery that is searched was seen just now to be the newest that the fleet shares."""

    def engine_loaded(self, stage: Stage, engine: str, device: str, precision: str) -> None:
        """The network of ``stage`` (``detect``, ``embed``) runs on ``engine``, on ``CPU`` or ``GPU``, in
        ``precision``."""

    def lease_gained(self, camera_id: str, epoch: int) -> None:
        """The camera is this worker's, as of ``epoch``."""

    def lease_ended(self, camera_id: str) -> None:
        """The camera is no longer this worker's."""

    def lease_lost(self, reason: str) -> None:
        """A camera that was read must be given up (``superseded``, ``rebalanced``, ``removed``, ...)."""

    def leases_renewed(self, owned: int) -> None:
        """Redis confirmed just now that ``owned`` cameras are this worker's."""

    def fleet_seen(self, workers: int, cameras: int, unowned: int) -> None:
        """The fleet at the last renewal: live workers, cameras to be read, and those that nobody reads."""

    def worker_load(self, ratio: float) -> None:
        """The share of time that the pipeline is busy, 0..1."""

    def source_state(self, camera_id: str, state: SourceState) -> None:
        """A source changed its state."""

    def camera_removed(self, camera_id: str) -> None:
        """The worker reads this camera no longer."""

    def config_reloaded(self, outcome: str) -> None:
        """The configuration was read again: ``taken``, ``restart_needed`` (in part), ``refused``."""

    @contextmanager
    def frames(self, frames: Sequence[Frame]) -> Iterator[None]:  # noqa: ARG002
        """Frames the passage of a batch through the stages."""
        yield

    def close(self) -> None:
        """Nothing more is reported."""

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[None]:  # noqa: ARG002
        """Times the block as one run of ``stage``."""
        yield
