"""Which frames are decoded and searched for faces: those that can tell something new, and under load those worth most.

The policy as a whole is told in :mod:`worker.recognition.attention`; this is the part of it that needs no more than
the frames of a camera, and what its last search has shown it to be worth.
"""

import math
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.config import CameraConfig, DetectionConfig
from worker.observer import Observer
from worker.types import JITTER_S, Attention, Frame
from worker.video.buffers import RawFrame

_ORDER: Final[tuple[Attention, ...]] = ("settled", "empty")
"""The intervals that are stretched under load, in this order. A camera at which somebody is undecided takes turns with
the others instead: looks that are far apart give no verdict."""
_THUMBNAIL_PX: Final = (160, 90)
_MOVED_LEVELS: Final = 6
"""Grey levels by which a cell of the thumbnail differs where something has moved; averaging leaves noise below it."""
LOOKS_IN_A_ROW: Final = 6
"""Under load, a camera at which somebody is undecided gets up to so many looks before the others have their turn. That
is enough for a verdict, which needs two faces, and for some looks that show none."""
FOLLOWED_GAP_S: Final = 0.64
"""A camera that is looked at this often is followed in full: no track is given up, and verdicts come in time."""
LATE_LOOK_S: Final = 2.5
"""A visit of five seconds has two chances to be seen if looks are nearer to each other than this."""
OVERLOADED_GAP_S: Final = 1.0
"""A worker whose looks at a moving picture are farther apart than this is overloaded."""
UNMOVED_FACE_S: Final = 0.4
"""A face that stands still is looked at this often all the same, well before its track would be given up."""
LAG_TARGET_S: Final = 0.25
"""An event of a live camera should be decided this soon after its frame came; what takes longer is load."""
_GAP_FADES: Final = 0.05
_STRETCH_STEP: Final = 1.25
_STRETCH_MAX: Final = 4.0
"""The longest interval times this is still less than the time after which an unseen track is given up."""
_GRID_JITTER_S: Final = 0.002


def reads_every_frame(camera: CameraConfig) -> bool:
    """Whether each frame is to be searched: where it is configured, and of folders, whose images need not be alike."""
    return camera.policy == "every" or Path(camera.source.get_secret_value()).is_dir()


def look_interval_s(config: DetectionConfig) -> float:
    """Nobody looks at a camera more often than this, unless each of its frames is searched."""
    return min(config.interval_s, config.settled_interval_s)


def may_pass_over(pts_s: float | None, frame_interval_s: float, look_interval_s: float) -> bool:
    """Whether no look falls due with the picture at ``pts_s``; one of unknown time is always looked at.

    Looks fall due with the first picture of each interval, so that the answer depends on the video alone.
    """
    if pts_s is None or not look_interval_s:
        return False
    this, last = (math.floor((at_s + _GRID_JITTER_S) / look_interval_s) for at_s in (pts_s, pts_s - frame_interval_s))
    return this == last


@dataclass(frozen=True, slots=True)
class Load:
    """What a worker does for its cameras, of those whose pictures move.

    ``gaps_s``: of each camera the usual longest time between two looks at it, s. ``carried``: about how many of
    ``cameras`` this machine could follow in full.
    """

    gaps_s: Mapping[str, float]
    cameras: int
    carried: float

    def __str__(self) -> str:
        """In words, where the worker is overloaded; else empty."""
        slowest, gap_s = max(self.gaps_s.items(), key=lambda item: item[1], default=("", 0.0))
        if gap_s <= OVERLOADED_GAP_S:
            return ""
        return (
            f"overloaded: this machine carries about {max(1, round(self.carried))} of these {self.cameras} cameras; "
            f"{slowest} is looked at every {gap_s:.1f} s"
        )


@dataclass(slots=True)
class _Watch:
    attention: Attention = "empty"
    searched_pts_s: float = float("-inf")
    thumbnail: NDArray[np.uint8] | None = None
    looks_in_a_row: int = 0
    looked_s: float = float("nan")
    gap_s: float = 0.0


class Schedule:
    """When each camera's next frame is searched. Safe to call from decode threads and the pipeline's.

    The cameras named in ``always`` have every frame searched. ``most_frames`` is how many frames a batch may hold at
    the moment: small batches are decided sooner.
    """

    def __init__(
        self,
        config: DetectionConfig,
        observer: Observer | None = None,
        *,
        always: Collection[str] = (),
        max_frames: int = 8,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._clock = clock
        self._max_frames = max_frames
        self.most_frames = max_frames
        self._always = set(always)
        self._observer = observer or Observer()
        self._watches: dict[str, _Watch] = {}
        self._stretch: dict[Attention, float] = {"settled": 1.0, "empty": 1.0, "deciding": 1.0}
        self._lock = threading.Lock()

    def search_always(self, camera_id: str) -> None:
        """Every frame of this camera is searched from now on."""
        self._always.add(camera_id)

    def forget(self, camera_id: str) -> None:
        """The camera is gone; one of the same id begins anew."""
        with self._lock:
            self._watches.pop(camera_id, None)
            self._always.discard(camera_id)

    def wanted(self, camera_id: str, pts_s: float) -> bool:
        """Whether enough time has passed since the camera was searched; a frame that is not wanted is counted."""
        if camera_id in self._always:
            return True
        watch = self._watch(camera_id)
        base_s = self._config.interval_s if watch.attention == "deciding" else self._config.settled_interval_s
        passed_s = pts_s - watch.searched_pts_s + JITTER_S
        if passed_s >= base_s * self._stretch[watch.attention]:
            return True
        self._observer.frame_skipped(camera_id, "load" if passed_s >= base_s else "interval")
        return False

    def due(self, frame: Frame | RawFrame) -> bool:
        """Whether to search ``frame`` now, which then counts as searched."""
        if not self.wanted(frame.camera_id, frame.pts_s):
            return False
        watch = self._watch(frame.camera_id)
        if self._config.motion_gate and frame.camera_id not in self._always:
            thumbnail = _thumbnail(frame)
            still_s = self._config.unmoved_interval_s if watch.attention == "empty" else UNMOVED_FACE_S
            rested = frame.pts_s - watch.searched_pts_s + JITTER_S >= still_s
            if not rested and not _moved(watch.thumbnail, thumbnail):
                self._observer.frame_skipped(frame.camera_id, "no_motion")
                watch.looked_s = math.nan  # whatever the pause becomes, it is not for load
                return False
            watch.thumbnail = thumbnail
        watch.searched_pts_s = frame.pts_s
        self._note_gap(frame.camera_id, watch)
        return True

    def attend(self, camera_id: str, attention: Attention) -> None:
        """What the search of a camera has shown it to be worth."""
        watch = self._watch(camera_id)
        watch.attention = attention
        in_a_row = attention == "deciding" and watch.looks_in_a_row < LOOKS_IN_A_ROW
        watch.looks_in_a_row = watch.looks_in_a_row + 1 if in_a_row else 0

    def turn(self, camera_id: str) -> int:
        """The place of a camera among those that have a frame, the lowest first; equal ones take turns.

        A camera at which somebody is undecided comes first, for :data:`LOOKS_IN_A_ROW` looks. Then the others have
        their turn, so the longest time without a look is that of one such row at each of them.
        """
        return 0 if self._watch(camera_id).looks_in_a_row else 1

    def load(self) -> Load:
        """How often cameras are looked at now."""
        with self._lock:
            gaps_s = {name: watch.gap_s for name, watch in self._watches.items() if name not in self._always}
        carried = sum(min(1.0, FOLLOWED_GAP_S / gap_s) if gap_s else 1.0 for gap_s in gaps_s.values())
        return Load(gaps_s, len(gaps_s), carried)

    def _note_gap(self, camera_id: str, watch: _Watch) -> None:
        now_s = self._clock()
        passed_s, watch.looked_s = now_s - watch.looked_s, now_s
        if not math.isnan(passed_s):
            if passed_s > LATE_LOOK_S:
                self._observer.look_late(camera_id)
            # Looks in a row are near each other, and the pause after them is long: the pause is what counts.
            watch.gap_s += (1.0 if passed_s > watch.gap_s else _GAP_FADES) * (passed_s - watch.gap_s)

    def lagged(self, lag_s: float, rounds: float = 1.0) -> None:
        """Fits the size of batches and the intervals to the load, by one step. ``lag_s``: how old the oldest live frame
        of a batch was when its events were decided. ``rounds``: how many such batches it takes to serve every camera
        that waits."""
        if lag_s > LAG_TARGET_S:
            self.most_frames = max(1, self.most_frames // 2)
        elif lag_s < LAG_TARGET_S / 2:
            self.most_frames = min(self._max_frames, self.most_frames + 1)
        if lag_s * rounds > LAG_TARGET_S:
            for attention in _ORDER:
                if self._stretch[attention] < _STRETCH_MAX:
                    self._stretch[attention] = min(_STRETCH_MAX, self._stretch[attention] * _STRETCH_STEP)
                    return
        elif lag_s * rounds < LAG_TARGET_S / 2:
            for attention in reversed(_ORDER):
                if self._stretch[attention] > 1.0:
                    self._stretch[attention] = max(1.0, self._stretch[attention] / _STRETCH_STEP)
                    return

    @property
    def budget_s(self) -> float:
        """How long a batch of live frames may take."""
        return LAG_TARGET_S

    @property
    def patience(self) -> float:
        """By what factor a search of a whole picture may wait longer, while the worker falls behind."""
        return max(self._stretch.values())

    def _watch(self, camera_id: str) -> _Watch:
        with self._lock:
            return self._watches.setdefault(camera_id, _Watch())


def _thumbnail(frame: Frame | RawFrame) -> NDArray[np.uint8]:
    grey = frame.grey if isinstance(frame, RawFrame) else cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.resize(grey, _THUMBNAIL_PX, interpolation=cv2.INTER_AREA), np.uint8)


def _moved(before: NDArray[np.uint8] | None, now: NDArray[np.uint8]) -> bool:
    return before is None or bool((cv2.absdiff(before, now) > _MOVED_LEVELS).any())
