"""One visit of one person to one camera: what is known of it while it goes on, and shortly after."""

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

import numpy as np

from worker.account import Account
from worker.boxes import iou_matrix
from worker.matching import TrackTemplate
from worker.types import Candidate, Match

SAME_PLACE_IOU: Final = 0.3
"""From this overlap on, a face without features may be the one that was there before the worker was restarted."""


@dataclass(slots=True)
class Sighting:
    """Times of ``pts_s`` are those of the source as it is read now; ``seen_pts_s`` and ``box`` are of the last frame
    with the person. ``resumed_until_pts_s`` is set while nobody has been seen yet to go on with a sighting that began
    before the source was opened; it then ends at this time.
    """

    sighting_id: str
    camera_id: str
    track_id: int
    started_at: datetime
    started_pts_s: float
    dimension: int
    template: TrackTemplate = field(init=False)
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
