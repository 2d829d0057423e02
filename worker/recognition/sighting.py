"""One visit of one person to one camera: what is known of it while it goes on, and shortly after."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

import numpy as np
from numpy.typing import NDArray

from worker.boxes import expand, iou_matrix
from worker.config import RecognitionConfig
from worker.history.account import Account
from worker.recognition.matching import TrackTemplate
from worker.types import Attention, Candidate, Match

DOUBT_RATIO: Final = 0.5
"""A face this far below the threshold, as a part of it, is hardly the person that its track has shown so far. Faces of
one visit resemble each other more than two photos of a person do, for which the threshold was fitted."""
SAME_PLACE_IOU: Final = 0.3
"""From this overlap on, a face without features may be the one that was there before the worker was restarted."""


@dataclass(slots=True)
class Sighting:
    """Times of ``pts_s`` are those of the source as it is read now; ``seen_pts_s`` and ``box`` are of the last frame
    with the person. ``resumed_until_pts_s`` is set while nobody has been seen yet to go on with a sighting that began
    before the source was opened; it then ends at this time. ``doubtful`` holds the latest faces, if none of them
    resembles the ``template``; ``leapt``: the face was last seen too far away, or too long ago, to be surely the same.
    """

    sighting_id: str
    camera_id: str
    track_id: int
    started_at: datetime
    started_pts_s: float
    dimension: int
    template: TrackTemplate = field(init=False)
    doubtful: TrackTemplate = field(init=False)
    leapt: bool = False
    match: Match | None = None
    candidate: Candidate | None = None
    detections: int = 0
    announced_identity: str | None = None
    transitions: int = 0
    last_event_id: str = ""
    box: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    frame_size: tuple[int, int] = (0, 0)
    seen_at: datetime = field(init=False)
    seen_pts_s: float = 0.0
    lost: bool = False
    embedded_pts_s: float = float("-inf")
    embedded_area_px: float = 0.0
    rejection: str = ""
    template_changed: bool = False
    unknown_id: str = ""
    account: Account = field(default_factory=Account)
    resumed_until_pts_s: float | None = None

    def __post_init__(self) -> None:
        self.template = TrackTemplate(self.dimension)
        self.doubtful = TrackTemplate(self.dimension)
        self.seen_at = self.started_at

    @property
    def announced(self) -> bool:
        """Whether ``started`` has been published."""
        return self.announced_identity is not None

    @property
    def identity_id(self) -> str:
        """Of the person, empty while unknown."""
        return (self.match.identity_id or "") if self.match else ""

    @property
    def label(self) -> str:
        """For people to read: the name, ``unknown``, or ``...`` while undecided."""
        if self.match and self.match.identity_id:
            return self.match.identity_name
        return "unknown" if self.announced else "..."

    @property
    def outcome(self) -> str:
        """Why the person has, or has not, a name."""
        if self.match and self.template.count:
            return self.match.reason
        return self.rejection or "not_enough_evidence"

    def learn(self, vector: NDArray[np.float32], quality: float, threshold: float) -> None:
        """Adds an embedded face. Once the sighting is announced, what resembles it not at all is held back, until a
        face that does shows that it is still the same person."""
        if self.announced and self.template.count and float(self.template.vector @ vector) < DOUBT_RATIO * threshold:
            self.doubtful.add(vector, quality)
            return
        self.template.merge(self.doubtful)
        self.doubtful = TrackTemplate(self.dimension)
        self.template.add(vector, quality)
        self.template_changed = True

    def withdraw_name(self) -> None:
        """Somebody beside them is nearer to the person that they were taken for."""
        if self.match is not None:
            self.match = replace(self.match, identity_id=None, identity_name="", reason="identity_taken")

    def seems_the_same(self, later: "Sighting", threshold: float) -> bool:
        """Whether ``later`` shows this person again: by the faces, or, where no face was good enough to tell, because
        the track is the same."""
        if later.template.count:
            return self.template.count > 0 and self.template.similarity(later.template) >= threshold
        if self.resumed_until_pts_s is None:
            return self.track_id == later.track_id
        # The tracks of another worker, or of an earlier run, were counted anew: there is only the place to go by.
        boxes = np.array([self.box, later.box], np.float32)
        return bool(iou_matrix(boxes[:1], boxes[1:])[0, 0] >= SAME_PLACE_IOU)


def one_face_per_person(present: Iterable[Sighting]) -> None:
    """Of several faces present at once that were given the same name, only the most similar keeps it."""
    best: dict[str, tuple[Sighting, float]] = {}
    for sighting in present:
        if not (sighting.match and sighting.match.identity_id):
            continue
        similarity = sighting.match.similarity
        rival, highest = best.setdefault(sighting.match.identity_id, (sighting, similarity))
        if rival is sighting:
            continue
        if highest < similarity:
            best[sighting.match.identity_id] = sighting, similarity
            rival.withdraw_name()
        else:
            sighting.withdraw_name()


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
