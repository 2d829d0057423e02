"""Every Prometheus metric, and the observer that stages call.

Stages know :class:`Observer` only, which does nothing; :class:`PrometheusObserver` is what a worker hands
them. The hot loop holds no counters of its own.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal

SourceState = Literal["connecting", "streaming", "stalled", "waiting", "ended", "failed"]
SOURCE_STATES: Final[tuple[SourceState, ...]] = (
    "connecting", "streaming", "stalled", "waiting", "ended", "failed",
)  # fmt: skip
Stage = Literal["decode", "detect", "track", "align", "embed", "search", "decide", "publish"]


class Observer:
    """What stages report. The base does nothing, so that a stage needs no metrics to be used or tested."""

    def frame_read(self, camera_id: str) -> None:
        """A frame left the decoder."""

    def frame_dropped(self, camera_id: str, reason: str, count: int = 1) -> None:
        """``count`` frames were given up unprocessed (``superseded``, ``stale``, ``undecodable``, ...)."""

    def faces_detected(self, camera_id: str, count: int) -> None:
        """``count`` faces were found in a frame."""

    def face_rejected(self, camera_id: str, reason: str, count: int = 1) -> None:
        """``count`` faces were not embedded, for ``reason`` (``too_small``, ``blurred``, ...)."""

    def track_ended(self, camera_id: str, outcome: str) -> None:
        """A track ended as ``matched``, ``below_threshold``, ``ambiguous``, ``too_short``, ..."""

    def batch(self, stage: Stage, size: int) -> None:
        """A stage was run on ``size`` items at once."""

    def queue_depth(self, queue: str, depth: int) -> None:
        """``depth`` items wait in ``queue`` (``outbox``, or a camera's id)."""

    def event_published(self, camera_id: str, event_type: str) -> None:
        """Redis has accepted an event."""

    def event_dropped(self, camera_id: str, reason: str) -> None:
        """An event was given up (``buffer_full``, ``rejected``)."""

    def event_latency(self, camera_id: str, seconds: float) -> None:
        """From the frame's arrival to its event's acceptance by Redis."""

    def gallery_size(self, people: int, samples: int, version: int) -> None:
        """The gallery that is searched now."""

    def source_state(self, camera_id: str, state: SourceState) -> None:
        """A source changed its state."""

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[None]:
        """Times the block as one run of ``stage``."""
        yield
