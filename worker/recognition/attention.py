"""When a face is looked for: the whole policy, in one place.

To search a whole picture for faces costs most, to embed a face comes next, and most frames repeat what the last one
told. So each frame has to pass these questions, in this order. Those about video are answered in
:mod:`worker.video.schedule`, the others here. ``docs/decisions/scheduling.md`` has the reasons and the measurements.

Of a camera with the policy ``every``, and of a folder, each frame is decoded and its whole picture searched: questions
1 to 3 are asked of all others.

1. **Is it decoded?** (``schedule.may_pass_over``, asked by the decoder.) Nobody looks more often than every
   ``detection.interval_s`` or ``settled_interval_s``, whichever is shorter. A picture between two such looks is not
   decoded, if no other picture depends on it. Which pictures these are depends on the video alone.
2. **Is it searched at all?** (``schedule.Schedule``.) It must pass the interval and the motion gate:

   - *Interval.* Since the last search ``detection.interval_s`` must have passed while somebody in front of the camera
     is undecided, ``settled_interval_s`` while everybody is settled or nobody is there.
   - *Motion gate* (``detection.motion_gate``). A picture that stands still is not searched again, except after
     ``unmoved_interval_s`` where nobody is there, and after ``schedule.UNMOVED_FACE_S`` where somebody is.

   *Under load* the worker decides on live frames more than ``schedule.LAG_TARGET_S`` after they came. Then batches
   become smaller, and the intervals longer step by step: first those of settled cameras, then of empty ones. They
   recover in the opposite order. The interval of a camera where somebody is undecided stays: such cameras come first,
   for ``schedule.LOOKS_IN_A_ROW`` looks, and then the others have their turn. Of a live camera only the newest frame
   waits; what it replaces is dropped, and so is a frame that waited too long (:mod:`worker.video.buffers`). A recording
   is never under load: the same file gives the same events.
3. **Is its whole picture searched?** (:func:`is_search_due`, :func:`has_lost_a_face`.) Every
   ``detection.search_interval_s``; under load this is stretched as the intervals are. In between, faces are looked for
   only where their tracks expect them. If nobody is expected, or somebody who is expected is not found there, the whole
   picture is searched at once.
4. **Which of the faces are embedded?** (:func:`wants_face`, :func:`best_of_each_track`.) Each face of a track with
   fewer than ``recognition.min_embeddings`` embedded faces. Later, at most every :data:`EMBED_INTERVAL_S`, a face

   - of a track that is not settled (:data:`SETTLED_DISTANCE`) and has fewer than ``max_embeddings``;
   - that may be another person's: it leapt (:func:`has_leapt`), or the latest faces do not resemble the track;
   - that is much closer than before (:data:`CLOSER_FACTOR`);
   - of a track that was last checked :data:`RECHECK_INTERVAL_S` ago.

   A face below ``recognition.min_quality`` is not embedded. Of one track, a batch embeds the
   :data:`MOST_FACES_A_BATCH` best at most. Of live frames it embeds no more faces than
   ``schedule.LAG_TARGET_S`` allows, by what a face took before: those of undecided people first, then larger and
   sharper ones (:func:`worth_of`).
5. **What is the camera worth from now on?** (:func:`attention`.) ``deciding``, ``settled`` or ``empty``. With this,
   question 2 is answered for the next frames.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from worker.boxes import area, expand, iou_matrix
from worker.config import DetectionConfig, RecognitionConfig
from worker.recognition.sighting import Sighting
from worker.types import JITTER_S, Attention, Detections, Frame

SETTLED_DISTANCE: Final = 0.10
"""A similarity this far from the threshold gives a verdict that further faces are unlikely to change."""
EMBED_INTERVAL_S: Final = 0.2
"""Faces nearer in time than this look alike: another one adds cost and no evidence."""
RECHECK_INTERVAL_S: Final = 5.0
"""A settled track is looked at again this often: trackers do swap people."""
CLOSER_FACTOR: Final = 1.5
"""A face this much larger in area than any embedded one is worth embedding for its quality."""
LEAP: Final = 0.5
"""A face that was out of sight and comes back farther away than this, in face sizes, may be another person's."""
FASTEST: Final = 10.0
"""Nobody's face moves faster than this, in face sizes a second: about two metres a second."""
CROSSING_FACTOR: Final = 1.5
"""Faces whose boxes, enlarged by this, overlap may be taken for each other: their tracks need a short interval."""
FEWEST_FACES: Final = 2
"""Embedded in a batch in any case, however long a face takes: as many as a verdict needs."""
MOST_FACES_A_BATCH: Final = 2
"""Of one track: neighbouring frames tell the same."""


@dataclass(frozen=True, slots=True)
class TrackedFace:
    """A face that is worth embedding: one detection of ``frame``, the track it belongs to, its quality 0..1."""

    frame: Frame
    detection: Detections
    track_id: int
    quality: float


def is_search_due(config: DetectionConfig, pts_s: float, searched_pts_s: float, patience: float) -> bool:
    """Whether the whole picture is to be searched at ``pts_s``, after it was last searched at ``searched_pts_s``.

    Under load, ``patience`` above 1 makes the pause that many times as long. A clock that jumped back makes the search
    due.
    """
    since_s = pts_s - searched_pts_s + JITTER_S
    return not 0 <= since_s < config.search_interval_s * patience


def has_lost_a_face(expected: int, found: int) -> bool:
    """Whether the whole picture must be searched after all: nobody was expected, or not everybody was found."""
    return not expected or found < expected


def wants_face(sighting: Sighting, config: RecognitionConfig, pts_s: float, area_px: float) -> bool:
    """Whether a face of ``area_px`` that is seen at ``pts_s`` is worth embedding."""
    count = sighting.template.count
    if count < config.min_embeddings:
        return True
    if pts_s - sighting.embedded_pts_s < EMBED_INTERVAL_S:
        return False
    if sighting.leapt or sighting.doubtful.count or (count < config.max_embeddings and not _is_settled(sighting)):
        return True
    return area_px > CLOSER_FACTOR * sighting.embedded_area_px or pts_s - sighting.embedded_pts_s >= RECHECK_INTERVAL_S


def has_leapt(sighting: Sighting, box: Sequence[float], pts_s: float, looked_pts_s: float) -> bool:
    """Whether the face at ``box`` (x1, y1, x2, y2) px is too far from where it was seen to be surely the same person's.

    ``looked_pts_s``: when the camera was looked at before.
    """
    left, top, right, bottom = sighting.box
    moved_px = math.hypot(box[0] + box[2] - left - right, box[1] + box[3] - top - bottom) / 2
    was_seen = sighting.seen_pts_s >= looked_pts_s
    reach = LEAP + FASTEST * (pts_s - sighting.seen_pts_s) * was_seen
    return moved_px > reach * max(right - left, bottom - top)


def best_of_each_track(faces: Sequence[TrackedFace]) -> list[TrackedFace]:
    """At most :data:`MOST_FACES_A_BATCH` of each track, the best ones."""
    kept: dict[tuple[str, int], list[TrackedFace]] = {}
    for face in faces:
        kept.setdefault((face.frame.camera_id, face.track_id), []).append(face)
    return [
        face
        for group in kept.values()
        for face in sorted(group, key=lambda face: face.quality, reverse=True)[:MOST_FACES_A_BATCH]
    ]


def worth_of(face: TrackedFace) -> float:
    """What a face adds to what is known of its track: more, the larger and sharper it is."""
    return face.quality * float(np.sqrt(area(face.detection.boxes)[0]))


def attention(present: Sequence[Sighting], config: RecognitionConfig, min_detections: int) -> Attention:
    """What a further look is worth at a camera that shows the people ``present``."""
    if not present:
        return "empty"
    if any(_is_new(sighting, config, min_detections) for sighting in present):
        return "deciding"
    near = expand(np.array([sighting.box for sighting in present], np.float32), CROSSING_FACTOR)
    crossing = np.triu(iou_matrix(near, near), 1).any()
    return "deciding" if crossing else "settled"


def _is_new(sighting: Sighting, config: RecognitionConfig, min_detections: int) -> bool:
    """The next face of it is wanted at once, not only after :data:`EMBED_INTERVAL_S`."""
    if sighting.detections < min_detections:
        return True
    return sighting.template.count < config.min_embeddings and not sighting.rejection


def _is_settled(sighting: Sighting) -> bool:
    match = sighting.match
    return match is not None and abs(match.similarity - match.threshold) >= SETTLED_DISTANCE
