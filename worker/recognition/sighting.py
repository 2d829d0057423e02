"""One visit of one person to one camera: what is known of it while it goes on, and shortly after."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

import numpy as np
from numpy.typing import NDArray

from worker.boxes import iou_matrix
from worker.history.account import Account
from worker.recognition.matching import TrackTemplate
from worker.types import Candidate, Match

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
