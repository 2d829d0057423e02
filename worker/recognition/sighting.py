"""One visit of one person to one camera: what is known of it while it lasts and shortly after, and how it is kept."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

import numpy as np
from numpy.typing import NDArray

from worker.boxes import iou_matrix
from worker.config import RecognitionConfig
from worker.erased import Erased
from worker.history.evidence import Evidence
from worker.history.recorder import Recorder
from worker.history.records import Account, EmbedderId
from worker.observer import Observer
from worker.recognition.matching import TrackTemplate
from worker.recognition.unknowns import Unknowns
from worker.types import Candidate, Match


@dataclass(frozen=True, slots=True)
class RecognitionContext:
    """Made once for each model by the pipeline, and again when the rules in ``config`` change.

    ``dimension`` is the length of the model's vectors, ``min_detections`` how often somebody must be seen to count.
    ``recorder``, ``evidence`` and ``unknowns`` are None where they are not configured.
    """

    config: RecognitionConfig
    model_id: str
    preprocessing_digest: str
    dimension: int
    min_detections: int
    worker_id: str
    observer: Observer
    recorder: Recorder | None = None
    evidence: Evidence | None = None
    unknowns: Unknowns | None = None
    erased: Erased = field(default_factory=Erased)

    @property
    def embedder(self) -> EmbedderId:
        """Which vectors compare with those of this model."""
        return EmbedderId(self.model_id, self.preprocessing_digest)


SAME_VISIT_SHARE: Final = 0.25
"""Faces without a name continue a visit from this far on between the threshold and 1."""
DOUBT_RATIO: Final = 0.5
"""A face this far below the threshold, as a part of it, is hardly the person that its track has shown so far. Faces of
one visit resemble each other more than two photos of a person do, for which the threshold was fitted."""
SAME_TRACK_S: Final = 1.5
"""A track tells for so long that it shows the same person, where no face was good enough to tell."""
NAMED_ERASED: Final = "erased"
"""In place of the identity that was announced, of a person who was erased: so it is told that the name is gone."""
SAME_PLACE_IOU: Final = 0.3
"""From this overlap on, a face that is too poor to be compared may be the one that was there before a restart."""


@dataclass(slots=True)
class Sighting:
    """Times of ``pts_s`` are those of the source as it is read now; ``seen_pts_s`` and ``box`` are of the last frame
    with the person. A sighting that began before the source was opened has ``resumed_until_pts_s`` until the person is
    seen again; if they are not, it ends at this time. ``doubtful`` holds the latest faces, if none of them resembles
    the ``template``. ``leapt``: the face was last seen so far away or so long ago that it may be another one.
    ``together``: the ids of the sightings that were seen in the same look, so that they are other people.
    ``zones``: the names of the zones in which the person was seen.
    ``withdrawn``: the identity whose name was taken back in favour of one of those.
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
    together: set[str] = field(default_factory=set)
    zones: set[str] = field(default_factory=set)
    match: Match | None = None
    candidate: Candidate | None = None
    withdrawn: str = ""
    detections: int = 0
    announced_identity: str | None = None
    transitions: int = 0
    last_event_id: str = ""
    box: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    frame_size: tuple[int, int] = (0, 0)
    seen_at: datetime = field(init=False)
    seen_pts_s: float = 0.0
    lost: bool = False
    no_more_faces: bool = False
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

    def bears(self, erased: Erased) -> bool:
        """Whether this is a sighting of somebody who was erased."""
        ids = (self.sighting_id, self.unknown_id, self.announced_identity, self.identity_id, self.withdrawn)
        return any(an_id in erased for an_id in ids)

    def mentions(self, erased: Erased) -> bool:
        """Whether somebody who was erased was among the nearest."""
        found = self.candidate
        return found is not None and (found.identity_id in erased or found.runner_up_id in erased)

    def start_over(self) -> None:
        """Forgets the faces seen so far and what was decided by them; the person who is there is told by new ones."""
        self.template, self.doubtful = TrackTemplate(self.dimension), TrackTemplate(self.dimension)
        self.match = self.candidate = None
        if self.announced_identity:
            self.announced_identity = NAMED_ERASED
        self.unknown_id = self.withdrawn = ""
        self.account = Account(faces=self.account.faces, largest_px=self.account.largest_px)
        self.template_changed = False
        self.embedded_pts_s, self.embedded_area_px = float("-inf"), 0.0

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
        """Adds an embedded face. Once the sighting is announced, or after a gap or a leap, a face that does not
        resemble it at all is held back, until one that does shows that it is still the same person."""
        may_be_another = self.announced or self.leapt or self.doubtful.count > 0
        if may_be_another and self.template.count and float(self.template.vector @ vector) < DOUBT_RATIO * threshold:
            self.doubtful.add(vector, quality)
            return
        self.template.merge(self.doubtful)
        self.doubtful = TrackTemplate(self.dimension)
        self.template.add(vector, quality)
        self.template_changed = True

    def expect_no_more(self) -> None:
        """No further face comes in time for the verdict: it is taken once more, on those that there are."""
        if not self.no_more_faces:
            self.no_more_faces = self.template_changed = True

    def is_another_than(self, other: "Sighting") -> bool:
        """Whether both were seen in one look, so that they cannot be one person."""
        return other.sighting_id in self.together

    def withdraw_name(self) -> None:
        """Takes the name back: somebody else in the picture is more similar to that person."""
        if self.match is not None:
            self.withdrawn = self.identity_id
            self.match = replace(self.match, identity_id=None, identity_name="", reason="identity_taken")

    def likeness(self, later: "Sighting") -> float:
        """Cosine (-1..1) between what was learnt here and in ``later``; -1 if one of them has no embedded face."""
        if not (self.template.count and later.template.count):
            return -1.0
        return self.template.similarity(later.template)

    def seems_in_place(self, later: "Sighting") -> bool:
        """Whether ``later``, of which no face was good enough to compare, shows this person again: the track is the
        same, or the place."""
        if later.template.count:
            return False
        if self.resumed_until_pts_s is None:
            # After a longer pause somebody else may stand in the place, and the tracker cannot tell.
            return self.track_id == later.track_id and later.started_pts_s - self.seen_pts_s <= SAME_TRACK_S
        # Tracks of another worker, or of an earlier run, were counted anew: only the place is left to compare.
        boxes = np.array([self.box, later.box], np.float32)
        return bool(iou_matrix(boxes[:1], boxes[1:])[0, 0] >= SAME_PLACE_IOU)


def same_visit_threshold(threshold: float) -> float:
    """Cosine from which faces without a name are those of a person who has just gone, where a person is named from
    ``threshold`` on."""
    return threshold + SAME_VISIT_SHARE * (1.0 - threshold)


def note_together(seen: Iterable[Sighting]) -> None:
    """All of ``seen`` were seen in one look, so that they are different people."""
    seen = list(seen)
    ids = {sighting.sighting_id for sighting in seen}
    for sighting in seen:
        sighting.together |= ids - {sighting.sighting_id}


def one_face_per_person(everybody: Iterable[Sighting]) -> None:
    """If several faces that were seen in one look were given the same name, only the most similar keeps it.

    ``everybody``: the people who are there, and those who have left and whose sightings have not ended. A face of the
    latter may be the one that a later track shows, as after a cut. So two that were never seen together take no name
    from each other.
    """
    named = [(sighting.match.similarity, sighting) for sighting in everybody if sighting.match and sighting.identity_id]
    kept: list[Sighting] = []
    for _similarity, sighting in sorted(named, key=lambda each: -each[0]):
        if any(sighting.is_another_than(rival) for rival in kept if rival.identity_id == sighting.identity_id):
            sighting.withdraw_name()
        else:
            kept.append(sighting)


def reconsider_withdrawn(everybody: Sequence[Sighting]) -> None:
    """Has the verdict taken again where a name was taken back in favour of somebody who does not bear it any more."""
    for sighting in everybody:
        if sighting.match and sighting.match.reason == "identity_taken":
            rivals = (other for other in everybody if sighting.is_another_than(other))
            sighting.template_changed |= all(other.identity_id != sighting.withdrawn for other in rivals)
