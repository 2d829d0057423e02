"""One camera in the pipeline: from the faces of a frame to those worth embedding, and what lasts between frames."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from worker.boxes import centres_in
from worker.config import CameraConfig, Config
from worker.recognition.attention import is_search_due
from worker.recognition.saved import without_erased
from worker.recognition.sighting import RecognitionContext, Sighting
from worker.recognition.sightings import CameraSightings
from worker.recognition.tracking import Look, Tracker
from worker.types import Detections, Frame, Tracks

_MISSED_FRAMES: Final = 2.5
"""A track of a camera with few frames lives over this many of their distances, so over two that do not show it."""


class PipelineCamera:
    """Tracks, sightings, and the state in which the camera was left before.

    ``threshold`` is the cosine from which a person is named at this camera; ``resume`` is the :meth:`state` in which
    the camera was left. Faces of a camera that is ``followed`` are looked for where they are expected, between two
    searches of the whole picture.
    """

    def __init__(
        self,
        settings: CameraConfig,
        config: Config,
        context: RecognitionContext,
        *,
        threshold: float,
        epoch: int = 0,
        followed: bool = False,
        resume: Mapping[str, Any] | None = None,
    ) -> None:
        self.settings = settings
        self.epoch = epoch
        self.followed = followed
        self.sightings = CameraSightings(settings.id, context, threshold=threshold, epoch=epoch)
        self.last_frame: Frame | None = None
        self._context = context
        self._detection = config.detection
        self._tracker = Tracker(config.tracking, start_score=config.detection.score_threshold)
        self._max_lost_s = config.tracking.max_lost_s
        self._searched_pts_s = float("-inf")
        self._added_s = time.monotonic()
        self._resume = resume
        self._filter_resume()

    def erase(self, context: RecognitionContext) -> list[Sighting]:
        """Forgets what was seen of those who were erased; returns their sightings."""
        self._context = context
        self._filter_resume()
        return self.sightings.erase(context)

    def _filter_resume(self) -> None:
        if self._resume is not None and self._context.erased:
            self._resume = without_erased(self._resume, self._context.erased)

    def adjust(self, settings: CameraConfig, context: RecognitionContext, threshold: float) -> None:
        """Goes by other rules from now on; every verdict is due again."""
        self.settings, self._context = settings, context
        self.sightings.adjust(context, threshold)

    def expected(self, frame: Frame, patience: float) -> NDArray[np.float32]:
        """Boxes float32 (n, 4) px where the faces should be in ``frame``; none where the whole picture is due."""
        if not self.followed or is_search_due(self._detection, frame.pts_s, self._searched_pts_s, patience):
            return Detections.empty().boxes
        return self._tracker.predict(frame.pts_s).detections.boxes

    def searched(self, frame: Frame) -> None:
        """The whole picture of ``frame`` was searched."""
        self._searched_pts_s = frame.pts_s

    def look(self, frame: Frame, found: Detections) -> Look:
        """The faces ``found`` in a frame, without those that are masked, and the tracks that they may continue."""
        # Who is seen once a second is not gone after one.
        self._tracker.max_lost_s = max(self._max_lost_s, _MISSED_FRAMES * frame.spacing_s)
        return Look(self._tracker, self._without_masked(frame, found), frame.pts_s)

    def see(self, frame: Frame, tracks: Tracks) -> list[int]:
        """Notes whom a frame shows; returns the indices of the faces that are worth embedding if they are good
        enough."""
        self.last_frame = frame
        self._go_on(frame.captured_at, frame.pts_s)
        wanted = self.sightings.see(frame, tracks)
        self._note_zones(frame, tracks)
        return wanted

    def leave_out(self, frame: Frame, untracked: int) -> None:
        """So many faces of a frame belong to no track: they score too low to start one."""
        context = self._context
        context.observer.face_rejected(frame.camera_id, "low_start_score", untracked)
        if context.recorder:
            context.recorder.rejected(frame.camera_id, frame.captured_at, "low_start_score", faces=untracked)

    def judge(self, track_id: int, quality: float, reason: str) -> bool:
        """Notes the ``quality`` of a face that is worth embedding; whether it is good enough. ``reason``: why it is
        not, or empty."""
        observer = self._context.observer
        observer.face_quality(self.settings.id, quality)
        if reason:
            self.sightings.reject(track_id, reason)
            observer.face_rejected(self.settings.id, reason)
        return not reason

    def _without_masked(self, frame: Frame, found: Detections) -> Detections:
        if not self.settings.masks or not len(found):
            return found
        masked = np.any([centres_in(found.boxes, mask, *frame.size) for mask in self.settings.masks], axis=0)
        if not masked.any():
            return found
        self._context.observer.face_rejected(frame.camera_id, "masked", int(masked.sum()))
        return found.take(np.flatnonzero(~masked))

    def _note_zones(self, frame: Frame, tracks: Tracks) -> None:
        for name, outline in self.settings.zones.items():
            for track_id in tracks.track_ids[centres_in(tracks.detections.boxes, outline, *frame.size)].tolist():
                if sighting := self.sightings.of_track(track_id):
                    sighting.zones.add(name)

    def see_nobody(self, pts_s: float) -> None:
        """Time has passed to ``pts_s`` without a frame since the last one."""
        if self.last_frame is not None:
            self.sightings.end_tracks(self._tracker.pass_time(pts_s))

    def state(self) -> Mapping[str, Any]:
        """The state of the sightings; until the first frame, the one that was given to go on with."""
        return self.sightings.state() if self._resume is None else self._resume

    def waited_s(self) -> float:
        """For how long no frame has come yet."""
        return time.monotonic() - self._added_s if self.last_frame is None else 0.0

    def leave(self) -> None:
        """Everybody is gone, also those of the state that was given to go on with."""
        self._go_on(datetime.now(UTC), 0.0)
        self.sightings.leave()

    def _go_on(self, at: datetime, pts_s: float) -> None:
        """Goes on with the state that was given, if that has not happened yet; ``at`` is at ``pts_s``."""
        if self._resume is not None:
            state, self._resume = self._resume, None
            self.sightings.resume(state, at, pts_s)
