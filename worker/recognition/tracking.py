"""Joins the faces of successive frames into tracks, those of all cameras of a batch at once.

Detections are associated in two rounds, confident ones first (ByteTrack, Zhang et al. 2022), with a
constant-velocity Kalman filter as the motion model (SORT, Bewley et al. 2016). The filter runs in seconds, not in
frames: frames may be dropped, irregular, or searched for faces only now and then.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from worker.boxes import iou
from worker.config import TrackingConfig
from worker.types import Detections, Tracks

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Places = NDArray[np.int64]
"""int64 (n,): the place of each thing among those that it belongs to."""

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

_Table = NDArray[Any]
"""Tracks, one a row of :data:`_TRACK`, those of a camera in the order in which they began."""
_TRACK: Final = np.dtype(
    [
        ("id", np.int64),
        ("centre", np.float64, 2),  # px
        ("velocity", np.float64, 2),  # px/s
        ("size", np.float64, 2),  # px
        ("covariance", np.float64, 3),  # position, position-velocity, velocity; in face sizes
        ("landmarks", np.float64, (5, 2)),  # relative to the centre, in sizes
        ("score", np.float32),
        ("started_s", np.float64),
        ("seen_s", np.float64),
        ("missed", np.int64),  # looks since then
    ]
)
_BYTES: Final = np.dtype((np.void, _TRACK.itemsize))


class Tracker:
    """The tracks of one camera, which :func:`update` goes on with. Not safe for concurrent calls.

    Faces that score below ``start_score`` continue a track but start none. Track ids count up from 1 and are
    never reused. A track that was not seen for ``max_lost_s`` is given up; it may be changed at any time.
    """

    def __init__(self, config: TrackingConfig, *, start_score: float = 0.9) -> None:
        self.iou_threshold = config.iou_threshold
        self.start_score = start_score
        self.max_lost_s = config.max_lost_s
        self.next_id = 1
        self.now_s = float("-inf")
        self.table: _Table = np.empty(0, _TRACK)

    def pass_time(self, pts_s: float) -> NDArray[np.int64]:
        """Notes that no frame came until ``pts_s``; returns the ids of the tracks that have ended by it."""
        before_s, self.now_s = self.now_s, max(pts_s, self.now_s)
        count = len(self.table)
        _advance(self.table, np.full(count, self.now_s - before_s), np.full(count, self.max_lost_s))
        gone = self.now_s - self.table["seen_s"] > self.max_lost_s
        ended: NDArray[np.int64] = self.table["id"][gone]
        self.table = self.table[~gone]
        return ended

    def predict(self, pts_s: float) -> Tracks:
        """Where the faces of the last update should be at ``pts_s``, for a frame that was not searched for faces.

        Changes nothing, and ends no track. Scores are those of the last detection; landmarks move with the box.
        """
        table = self.table[self.table["seen_s"] >= self.now_s]
        elapsed_s = max(pts_s - self.now_s, 0.0) if len(table) else 0.0
        if elapsed_s > self.max_lost_s:
            table = table[:0]
        centres = table["centre"] + table["velocity"] * elapsed_s
        landmarks = centres[:, None] + table["landmarks"] * table["size"][:, None]
        moved = Detections(_boxes(centres, table["size"]), table["score"], landmarks.astype(np.float32))
        ages_s = _ages_s(table["started_s"], self.now_s + elapsed_s)
        return Tracks(moved, table["id"], ages_s, np.empty(0, np.int64))


class Look(NamedTuple):
    """The faces that were found in a camera's frame at ``pts_s`` (seconds in the source)."""

    tracker: Tracker
    detections: Detections
    pts_s: float


def update(looks: Sequence[Look]) -> list[Tracks]:
    """Joins the faces of one frame each of many cameras to their tracks. No tracker may come twice.

    Returns for each look the faces that belong to a track, in the order of its ``detections``; faces that score too low
    to start one are left out. A track ends when its face was not seen for ``max_lost_s``, and was missed by at least
    :data:`MISSED_LOOKS` looks: where looks are rare, one that comes late must not end it, unless it is later than
    :data:`LONGEST_UNSEEN_S`. A clock that jumps back by more than ``max_lost_s`` ends all tracks.
    """
    if not looks:
        return []
    trackers = [look.tracker for look in looks]
    now_s, table, owners, ended = _at_their_times(looks)
    faces = _faces_of(looks)
    rows = _associate(trackers, table, owners, faces)
    table["missed"] += 1
    _correct(table, rows, faces)
    starting = np.flatnonzero((rows < 0) & faces.confident)
    if len(starting):
        rows[starting] = len(table) + np.arange(len(starting))
        table = _joined([table, _started(trackers, faces, starting, now_s)])
        owners = np.concatenate([owners, faces.owners[starting]])
    kept = np.flatnonzero(rows >= 0)
    rows, of = rows[kept], faces.owners[kept]
    table["landmarks"][rows] = (faces.found.landmarks[kept] - faces.centres[kept, None]) / faces.sizes[kept, None]
    table["score"][rows], table["seen_s"][rows], table["missed"][rows] = faces.found.scores[kept], now_s[of], 0
    order = np.argsort(owners, kind="stable")
    (tables,) = _parted(owners[order], len(looks), table[order])
    for tracker, own, own_now_s in zip(trackers, tables, now_s.tolist(), strict=True):
        tracker.table, tracker.now_s = own, own_now_s
    ages_s = _ages_s(table["started_s"][rows], now_s[of])
    parts = _parted(of, len(looks), kept - np.searchsorted(faces.owners, of), table["id"][rows], ages_s)
    return [
        Tracks(look.detections if len(own) == len(look.detections) else look.detections.take(own), ids, ages, gone)
        for look, own, ids, ages, gone in zip(looks, *parts, ended, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class _Faces:
    """Those of all looks, one after the other; ``owners`` are the places of their looks."""

    found: Detections
    owners: Places
    confident: NDArray[np.bool_]
    centres: Doubles
    sizes: Doubles


def _faces_of(looks: Sequence[Look]) -> _Faces:
    found = Detections.joined([look.detections for look in looks])
    owners = np.repeat(np.arange(len(looks)), [len(look.detections) for look in looks])
    least = np.array([look.tracker.start_score for look in looks], np.float32)
    return _Faces(found, owners, found.scores >= least[owners], *_centres_and_sizes(found.boxes))


def _joined(tables: Sequence[_Table]) -> _Table:
    # As bytes: NumPy would compare the names and kinds of all columns for each table.
    return np.concatenate([table.view(_BYTES) for table in tables]).view(_TRACK)


def _parted(owners: Places, count: int, *columns: NDArray[Any]) -> list[list[NDArray[Any]]]:
    """Of each column the values of each of ``count`` owners, which are in order."""
    ends = np.searchsorted(owners, np.arange(1, count + 1)).tolist()
    spans = [slice(begin, end) for begin, end in zip([0, *ends], ends, strict=False)]
    return [[values[span] for span in spans] for values in columns]


def _at_their_times(looks: Sequence[Look]) -> tuple[Doubles, _Table, Places, list[Places]]:
    """The time of each look, the tracks that are still followed there with the places of their looks, and the ids of
    those that have ended at each."""
    trackers = [look.tracker for look in looks]
    table = _joined([tracker.table for tracker in trackers])
    owners = np.repeat(np.arange(len(looks)), [len(tracker.table) for tracker in trackers])
    pts_s = np.array([look.pts_s for look in looks], np.float64)
    before_s = np.array([tracker.now_s for tracker in trackers])
    longest_s = np.array([tracker.max_lost_s for tracker in trackers], np.float64)
    jumped = pts_s < before_s - longest_s
    now_s = np.where(jumped, pts_s, np.maximum(pts_s, before_s))
    _advance(table, np.where(jumped, 0.0, now_s - before_s)[owners], longest_s[owners])
    lost_for_s = now_s[owners] - table["seen_s"]
    gone = jumped[owners] | (lost_for_s > np.maximum(longest_s, LONGEST_UNSEEN_S)[owners])
    gone |= (lost_for_s > longest_s[owners]) & (table["missed"] >= MISSED_LOOKS)
    (ended,) = _parted(owners[gone], len(looks), table["id"][gone])
    return now_s, table[~gone], owners[~gone], ended


def _advance(table: _Table, elapsed_s: Doubles, longest_s: Doubles) -> None:
    """Moves tracks on by ``elapsed_s``; how fast a face moved tells nothing of where it is after ``longest_s``."""
    table["centre"] += table["velocity"] * np.minimum(elapsed_s, longest_s)[:, None]
    position, both, velocity = table["covariance"].T
    noise = _ACCELERATION**2 * elapsed_s
    position += 2 * elapsed_s * both + elapsed_s**2 * velocity + noise * elapsed_s**2 / 3
    both += elapsed_s * velocity + noise * elapsed_s / 2
    velocity += noise


def _associate(trackers: Sequence[Tracker], table: _Table, owners: Places, faces: _Faces) -> Places:
    """The row of the track that continues with each face, or -1."""
    rows = np.full(len(faces.owners), -1, np.int64)
    if not len(rows) or not len(table):
        return rows
    # Each face of a camera with each of its tracks: for each camera a block, as high as it has faces.
    cameras = np.arange(len(trackers) + 1)
    first_face, first_track = np.searchsorted(faces.owners, cameras), np.searchsorted(owners, cameras)
    widths = np.diff(first_track)[faces.owners]
    begins = np.cumsum(widths) - widths
    face = np.repeat(np.arange(len(rows)), widths)
    track = np.arange(len(face)) + (first_track[faces.owners] - begins)[face]
    thresholds = np.array([tracker.iou_threshold for tracker in trackers], np.float32)
    affinity = _affinity(table[track], faces, face, thresholds[faces.owners[face]])
    taken = np.zeros(len(table), np.bool_)
    for chosen in (faces.confident, ~faces.confident):
        pairs = np.flatnonzero((affinity > 0) & chosen[face] & ~taken[track])
        which, where = face[pairs], track[pairs]
        alone = (np.bincount(which)[which] == 1) & (np.bincount(where)[where] == 1)
        rows[which[alone]] = where[alone]
        for camera in sorted(set(faces.owners[which[~alone]].tolist())):
            (top, bottom), (left, right) = first_face[camera : camera + 2], first_track[camera : camera + 2]
            block = affinity[begins[top] :][: (bottom - top) * (right - left)].reshape(bottom - top, right - left)
            wanted, free = np.flatnonzero(chosen[top:bottom]), np.flatnonzero(~taken[left:right])
            which, where = _pairs(block[np.ix_(wanted, free)])
            rows[top + wanted[which]] = left + free[where]
        taken[rows[rows >= 0]] = True
    return rows


def _pairs(affinity: Floats) -> tuple[Places, Places]:
    """Rows and columns, each in one pair at most, whose affinities are above 0 and greatest in sum."""
    # Nothing else needs SciPy while a worker starts, and it is a fifth of all that a worker imports.
    from scipy.optimize import linear_sum_assignment

    which, where = linear_sum_assignment(affinity, maximize=True)
    kept = affinity[which, where] > 0
    return which[kept], where[kept]


def _affinity(tracks: _Table, faces: _Faces, face: Places, iou_thresholds: Floats) -> Floats:
    """How well each ``face`` continues the track beside it (n,): 1 + IoU with the predicted box where they overlap
    enough, 0..1 where the face is merely near (small fast faces leave their box between two frames), else 0."""
    overlap = iou(faces.found.boxes[face], _boxes(tracks["centre"], tracks["size"]))
    scale = tracks["size"].mean(axis=1)
    distance = np.linalg.norm(faces.centres[face] - tracks["centre"], axis=1) / scale
    reach = np.minimum(3.0 * np.sqrt(tracks["covariance"][:, 0] + _MEASUREMENT**2), _LARGEST_STEP)
    ratio = faces.sizes[face].mean(axis=1) / scale
    near = (distance < reach) & (ratio < _SIZE_RATIO) & (ratio > 1 / _SIZE_RATIO)
    affinity = np.where(overlap >= iou_thresholds, 1.0 + overlap, np.where(near, 1.0 - distance / reach, 0.0))
    return affinity.astype(np.float32)


def _correct(table: _Table, rows: Places, faces: _Faces) -> None:
    """Moves the tracks ``rows`` to where their faces, one each where it is not -1, were found."""
    found = np.flatnonzero(rows >= 0)
    rows = rows[found]
    position, both, velocity = table["covariance"][rows].T
    total = position + _MEASUREMENT**2
    gain_position, gain_velocity = position / total, both / total
    residual = faces.centres[found] - table["centre"][rows]
    table["centre"][rows] += gain_position[:, None] * residual
    table["velocity"][rows] += gain_velocity[:, None] * residual
    table["covariance"][rows] = np.stack(
        [position * (1 - gain_position), both * (1 - gain_position), velocity - gain_velocity * both], axis=1
    )
    table["size"][rows] += _SIZE_GAIN * (faces.sizes[found] - table["size"][rows])


def _started(trackers: Sequence[Tracker], faces: _Faces, starting: Places, now_s: Doubles) -> _Table:
    """A new track of each face ``starting``."""
    table = np.zeros(len(starting), _TRACK)
    owners = faces.owners[starting]
    counts = np.bincount(owners, minlength=len(trackers))
    firsts = np.array([tracker.next_id for tracker in trackers]) - np.cumsum(counts) + counts
    table["id"] = firsts[owners] + np.arange(len(starting))
    table["centre"], table["size"] = faces.centres[starting], faces.sizes[starting]
    table["covariance"] = _MEASUREMENT**2, 0.0, _START_SPEED**2
    table["started_s"] = now_s[owners]
    for camera in np.flatnonzero(counts).tolist():
        trackers[camera].next_id += int(counts[camera])
    return table


def _centres_and_sizes(boxes: Floats) -> tuple[Doubles, Doubles]:
    corners = boxes.astype(np.float64)
    return (corners[:, :2] + corners[:, 2:]) / 2, np.maximum(corners[:, 2:] - corners[:, :2], 1.0)


def _ages_s(started_s: Doubles, now_s: Doubles | float) -> Floats:
    ages_s: Floats = (now_s - started_s).astype(np.float32)
    return ages_s


def _boxes(centres: Doubles, sizes: Doubles) -> Floats:
    return np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1).astype(np.float32)
