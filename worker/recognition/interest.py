"""Which faces are worth embedding, and which cameras worth a look: not every face of every frame."""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from worker.boxes import expand, iou_matrix
from worker.config import RecognitionConfig
from worker.recognition.sighting import Sighting
from worker.video.schedule import Attention

SETTLED_DISTANCE: Final = 0.10
"""A similarity this far from the threshold is a verdict that further faces are unlikely to change."""
EMBED_INTERVAL_S: Final = 0.2
"""Faces nearer in time than this look alike: the next one adds cost, not evidence."""
RECHECK_INTERVAL_S: Final = 5.0
"""A settled track is looked at again this often: trackers do swap people."""
CLOSER_FACTOR: Final = 1.5
"""A face this much larger in area than any embedded one is worth embedding for its quality."""
LEAP: Final = 0.5
"""A face that was out of sight and comes back farther away than this, in face sizes, may be another person's."""
FASTEST: Final = 10.0
"""Nobody's face moves faster than this, in face sizes a second: about two metres a second."""
CROSSING_FACTOR: Final = 1.5
"""Faces whose boxes, enlarged by this, overlap may be taken for each other: their tracks want a short interval."""


def wants_face(sighting: Sighting, config: RecognitionConfig, pts_s: float, area_px: float) -> bool:
    """Whether a face of ``area_px`` that is seen at ``pts_s`` is worth embedding.

    It is when its track is new, undecided, in doubt or about to be re-checked, or when it is much closer to the camera
    than before.
    """
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
