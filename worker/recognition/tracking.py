"""Joins the faces of successive frames of one camera into tracks.

Detections are associated in two rounds, confident ones first (ByteTrack, Zhang et al. 2022), with a
constant-velocity Kalman filter as the motion model (SORT, Bewley et al. 2016). The filter runs in seconds, not in
frames: frames may be dropped, irregular, or searched for faces only now and then.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from worker.boxes import iou_matrix
from worker.config import TrackingConfig
from worker.types import Detections, Tracks

Floats = NDArray[np.float32]

# Standard deviations in face sizes (the mean of width and height), and seconds.
_MEASUREMENT: Final = 0.06
_START_SPEED: Final = 4.0
_ACCELERATION: Final = 6.0
_LARGEST_STEP: Final = 1.5
"""The farthest that a face may lie from where it was expected, in face sizes, however uncertain that place was."""
_SIZE_RATIO: Final = 1.6
"""The most that a face may have grown or shrunk, if it is joined by distance alone."""
_SIZE_GAIN: Final = 0.5
MISSED_LOOKS: Final = 1
"""A track is given up only after so many looks that did not find its face, besides the one that comes now."""

LONGEST_UNSEEN_S: Final = 5.0
"""However rare looks are: a face that is found this long after the last look may be that of the next person."""


@dataclass(slots=True)
class _Table:
    """All tracks of a camera, one row each."""

    ids: NDArray[np.int64]
    centres: NDArray[np.float64]  # (n, 2) px
    velocities: NDArray[np.float64]  # (n, 2) px/s
    sizes: NDArray[np.float64]  # (n, 2) px
    covariances: NDArray[np.float64]  # (n, 3): position, position-velocity, velocity; in face sizes
    landmarks: NDArray[np.float64]  # (n, 5, 2), relative to centre, in sizes
    scores: Floats
    started_s: NDArray[np.float64]
    seen_s: NDArray[np.float64]
    missed: NDArray[np.int64]  # looks since then

    def take(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> "_Table":
        return _Table(*(getattr(self, name)[rows] for name in self.__slots__))

    def join(self, other: "_Table") -> "_Table":
        return _Table(*(np.concatenate([getattr(self, name), getattr(other, name)]) for name in self.__slots__))


class Tracker:
    """The tracks of one camera. Not safe for concurrent calls.

    Faces that score below ``start_score`` continue a track but start none. Track ids count up from 1 and are
    never reused. A track that was not seen for ``max_lost_s`` is given up; it may be changed at any time.
    """

    def __init__(self, config: TrackingConfig, *, start_score: float = 0.9) -> None:
        self._config = config
        self._start_score = start_score
        self.max_lost_s = config.max_lost_s
        self._next_id = 1
        self._now_s = float("-inf")
        self._table = _new_state(Detections.empty(), np.empty(0, np.int64), 0.0)

    def update(self, detections: Detections, pts_s: float) -> Tracks:
        """Joins the faces found in the frame at ``pts_s`` (seconds in the source) to their tracks.

        Returns the faces that belong to a track, in the order of ``detections``; faces that score too low to start
        one are left out. A track ends when its face was not seen for ``max_lost_s``, and was missed by at least
        :data:`MISSED_LOOKS` looks: where looks are rare, one that comes late must not end it, unless it is later than
        :data:`LONGEST_UNSEEN_S`. A clock that jumps back by more than ``max_lost_s`` ends all tracks.
        """
        if pts_s < self._now_s - self.max_lost_s:
            ended = self._drop(np.ones(len(self._table.ids), np.bool_))
            self._now_s = pts_s
        else:
            self._advance(max(pts_s, self._now_s))
            lost_for_s = self._now_s - self._table.seen_s
            missed = (lost_for_s > self.max_lost_s) & (self._table.missed >= MISSED_LOOKS)
            ended = self._drop(missed | (lost_for_s > max(self.max_lost_s, LONGEST_UNSEEN_S)))
        rows = self._associate(detections)
        matched = np.flatnonzero(rows >= 0)
        self._table.missed += 1
        _correct(self._table, rows[matched], detections.take(matched), self._now_s)
        starting = np.flatnonzero((rows < 0) & (detections.scores >= self._start_score))
        rows[starting] = len(self._table.ids) + np.arange(len(starting))
        ids = self._next_id + np.arange(len(starting), dtype=np.int64)
        self._next_id += len(starting)
        self._table = self._table.join(_new_state(detections.take(starting), ids, self._now_s))
        kept = np.flatnonzero(rows >= 0)
        return Tracks(
            detections.take(kept),
            self._table.ids[rows[kept]],
            (self._now_s - self._table.started_s[rows[kept]]).astype(np.float32),
            ended,
        )

    def pass_time(self, pts_s: float) -> NDArray[np.int64]:
        """Notes that no frame came until ``pts_s``; returns the ids of the tracks that have ended by it."""
        self._advance(max(pts_s, self._now_s))
        return self._drop(self._now_s - self._table.seen_s > self.max_lost_s)

    def predict(self, pts_s: float) -> Tracks:
        """Where the faces of the last update should be at ``pts_s``, for a frame that was not searched for faces.

        Changes nothing, and ends no track. Scores are those of the last detection; landmarks move with the box.
        """
        state = self._table.take(self._table.seen_s >= self._now_s)
        elapsed_s = max(pts_s - self._now_s, 0.0) if len(state.ids) else 0.0
        if elapsed_s > self.max_lost_s:
            state = state.take(np.zeros(len(state.ids), np.bool_))
        centres = state.centres + state.velocities * elapsed_s
        landmarks = centres[:, None] + state.landmarks * state.sizes[:, None]
        moved = Detections(_boxes(centres, state.sizes), state.scores, landmarks.astype(np.float32))
        ages = (self._now_s + elapsed_s - state.started_s).astype(np.float32)
        return Tracks(moved, state.ids, ages, np.empty(0, np.int64))

    def _drop(self, rows: NDArray[np.bool_]) -> NDArray[np.int64]:
        ended = self._table.ids[rows]
        if len(ended):
            self._table = self._table.take(~rows)
        return ended

    def _advance(self, now_s: float) -> None:
        state, elapsed_s = self._table, now_s - self._now_s if self._now_s > float("-inf") else 0.0
        self._now_s = now_s
        # How fast a face moved tells nothing of where it is much later.
        state.centres += state.velocities * min(elapsed_s, self.max_lost_s)
        position, both, velocity = state.covariances.T
        noise = _ACCELERATION**2 * elapsed_s
        position += 2 * elapsed_s * both + elapsed_s**2 * velocity + noise * elapsed_s**2 / 3
        both += elapsed_s * velocity + noise * elapsed_s / 2
        velocity += noise

    def _associate(self, detections: Detections) -> NDArray[np.int64]:
        """The row of the track that continues with each detection, or -1."""
        rows = np.full(len(detections), -1, np.int64)
        if not len(detections) or not len(self._table.ids):
            return rows
        affinity = _affinity(self._table, detections, self._config.iou_threshold)
        confident = detections.scores >= self._start_score
        for chosen in (np.flatnonzero(confident), np.flatnonzero(~confident)):
            free = np.setdiff1d(np.arange(len(self._table.ids)), rows)
            which, where = _pairs(affinity[np.ix_(chosen, free)])
            rows[chosen[which]] = free[where]
        return rows


def _pairs(affinity: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns, each in one pair at most, whose affinities are above 0 and greatest in sum."""
    possible = affinity > 0
    if (possible.sum(axis=0) <= 1).all() and (possible.sum(axis=1) <= 1).all():
        which, where = np.nonzero(possible)
        return which, where
    # Nothing else needs SciPy while a worker starts, and it is a fifth of all that a worker imports.
    from scipy.optimize import linear_sum_assignment

    which, where = linear_sum_assignment(affinity, maximize=True)
    kept = possible[which, where]
    return which[kept], where[kept]


def _affinity(state: _Table, detections: Detections, iou_threshold: float) -> Floats:
    """How well each detection continues each track (d, t): 1 + IoU with the predicted box where they overlap
    enough, 0..1 where the face is merely near (small fast faces leave their box between two frames), else 0."""
    overlap = iou_matrix(detections.boxes, _boxes(state.centres, state.sizes))
    centres, sizes = _centres_and_sizes(detections.boxes)
    scale = state.sizes.mean(axis=1)
    distance = np.linalg.norm(centres[:, None] - state.centres[None], axis=2) / scale
    reach = np.minimum(3.0 * np.sqrt(state.covariances[:, 0] + _MEASUREMENT**2), _LARGEST_STEP)
    ratio = sizes.mean(axis=1)[:, None] / scale
    near = (distance < reach) & (ratio < _SIZE_RATIO) & (ratio > 1 / _SIZE_RATIO)
    affinity = np.where(overlap >= iou_threshold, 1.0 + overlap, np.where(near, 1.0 - distance / reach, 0.0))
    return affinity.astype(np.float32)


def _correct(state: _Table, rows: NDArray[np.int64], faces: Detections, now_s: float) -> None:
    centres, sizes = _centres_and_sizes(faces.boxes)
    position, both, velocity = state.covariances[rows].T
    total = position + _MEASUREMENT**2
    gain_position, gain_velocity = position / total, both / total
    residual = centres - state.centres[rows]
    state.centres[rows] += gain_position[:, None] * residual
    state.velocities[rows] += gain_velocity[:, None] * residual
    state.covariances[rows] = np.stack(
        [position * (1 - gain_position), both * (1 - gain_position), velocity - gain_velocity * both], axis=1
    )
    state.sizes[rows] += _SIZE_GAIN * (sizes - state.sizes[rows])
    state.landmarks[rows] = (faces.landmarks - centres[:, None]) / sizes[:, None]
    state.scores[rows] = faces.scores
    state.seen_s[rows] = now_s
    state.missed[rows] = 0


def _new_state(faces: Detections, ids: NDArray[np.int64], now_s: float) -> _Table:
    n = len(faces)
    centres, sizes = _centres_and_sizes(faces.boxes)
    return _Table(
        ids=ids,
        centres=centres,
        velocities=np.zeros((n, 2)),
        sizes=sizes,
        covariances=np.tile([_MEASUREMENT**2, 0.0, _START_SPEED**2], (n, 1)),
        landmarks=(faces.landmarks - centres[:, None]) / sizes[:, None],
        scores=faces.scores.astype(np.float32),
        started_s=np.full(n, now_s),
        seen_s=np.full(n, now_s),
        missed=np.zeros(n, np.int64),
    )


def _centres_and_sizes(boxes: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    corners = boxes.astype(np.float64)
    return (corners[:, :2] + corners[:, 2:]) / 2, np.maximum(corners[:, 2:] - corners[:, :2], 1.0)


def _boxes(centres: NDArray[np.float64], sizes: NDArray[np.float64]) -> Floats:
    return np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1).astype(np.float32)
