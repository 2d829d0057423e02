"""What the pipeline remembers of one camera between its frames."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from worker.config import CameraConfig
from worker.recognition.sightings import CameraSightings
from worker.recognition.tracking import Tracker
from worker.types import Event, Frame


class PipelineCamera:
    """Tracks, sightings, and the state in which the camera was left before."""

    def __init__(
        self,
        config: CameraConfig,
        epoch: int,
        followed: bool,
        tracker: Tracker,
        sightings: CameraSightings,
        resume: Mapping[str, Any] | None = None,
    ) -> None:
        self.config = config
        self.epoch = epoch
        self.followed = followed
        self.tracker = tracker
        self.sightings = sightings
        self.last_frame: Frame | None = None
        self.searched_pts_s = float("-inf")
        self._added_s = time.monotonic()
        self._resume = resume

    def state(self) -> Mapping[str, Any]:
        """Of the sightings; until the first frame, that which is to be gone on with."""
        return self.sightings.state() if self._resume is None else self._resume

    def resume(self, at: datetime, pts_s: float) -> None:
        """Goes on with the state that was given, if it has not yet been gone on with; ``at`` is at ``pts_s``."""
        if self._resume is not None:
            state, self._resume = self._resume, None
            self.sightings.resume(state, at, pts_s)

    def waited_s(self) -> float:
        """For how long no frame has come yet."""
        return time.monotonic() - self._added_s if self.last_frame is None else 0.0

    def end(self) -> list[Event]:
        """Ends all sightings, those as well that were to be gone on with; returns the events of that."""
        self.resume(datetime.now(UTC), 0.0)
        return self.sightings.close()
