"""One visit of one person to one camera: what is known of it while it lasts and shortly after, and how it is kept."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, field_validator

from worker.boxes import iou_matrix
from worker.config import RecognitionConfig
from worker.events.codec import sighting_id
from worker.history.evidence import Evidence
from worker.history.recorder import Recorder
from worker.history.records import Account, EmbedderId
from worker.observer import Observer
from worker.recognition.matching import TrackTemplate
from worker.recognition.unknowns import Unknowns
from worker.redaction import first_problem
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
SAME_PLACE_IOU: Final = 0.3
"""From this overlap on, a face that is too poor to be compared may be the one that was there before a restart."""


@dataclass(slots=True)
class Sighting:
    """Times of ``pts_s`` are those of the source as it is read now; ``seen_pts_s`` and ``box`` are of the last frame
    with the person. A sighting that began before the source was opened has ``resumed_until_pts_s`` until the person is
    seen again; if they are not, it ends at this time. ``doubtful`` holds the latest faces, if none of them resembles
    the ``template``. ``leapt``: the face was last seen so far away or so long ago that it may be another one.
    ``together``: the ids of the sightings that were seen in the same look, so that they are other people.
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
        """Adds an embedded face. Once the sighting is announced, a face that does not resemble it at all is held back,
        until one that does shows that it is still the same person."""
        may_be_another = self.announced or self.leapt
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
        sighting.together |= ids


def one_face_per_person(present: Iterable[Sighting]) -> None:
    """If several faces that were seen in one look were given the same name, only the most similar keeps it.

    A track is ``present`` for a while after its face was last seen. That face may be the one that a later track shows,
    as after a cut. So two that were never seen together take no name from each other.
    """
    named = [(sighting.match.similarity, sighting) for sighting in present if sighting.match and sighting.identity_id]
    kept: list[Sighting] = []
    for _similarity, sighting in sorted(named, key=lambda each: -each[0]):
        if any(sighting.is_another_than(rival) for rival in kept if rival.identity_id == sighting.identity_id):
            sighting.withdraw_name()
        else:
            kept.append(sighting)


def reconsider_withdrawn(present: Iterable[Sighting], gone: Iterable[Sighting]) -> None:
    """Has the verdict taken again on everybody of ``present`` whose name was taken back in favour of a person who does
    not bear it any more, also among those who are ``gone``."""
    everybody = [*present, *gone]
    for sighting in everybody:
        if sighting.match and sighting.match.reason == "identity_taken":
            rivals = (other for other in everybody if sighting.is_another_than(other))
            sighting.template_changed |= all(other.identity_id != sighting.withdrawn for other in rivals)


FORMAT: Final = "facestream.sightings.v1"

_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=0, lt=2**63)]
_Px = Annotated[int, Field(ge=0, le=65_536)]
_Name = Annotated[str, Field(max_length=1024)]
_Reason = Annotated[str, Field(pattern=r"^[a-z0-9_]{0,40}$")]
"""It becomes the label of a metric."""
# Every time zone has to be able to show it.
_Time = Annotated[AwareDatetime, Field(ge=datetime(1970, 1, 2, tzinfo=UTC), lt=datetime(9999, 1, 1, tzinfo=UTC))]


class _Saved(BaseModel):
    # Fields that a later version adds are passed over.
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Template(_Saved):
    sum: str
    best: str
    count: _Count
    best_quality: _Finite


class _Account(_Saved):
    faces: _Count
    largest_px: _Finite
    least_px: _Finite
    rejected: Annotated[dict[_Reason, _Count], Field(max_length=64)]
    embedded: _Count
    continued_by: list[_Count]


class _Verdict(_Saved):
    """The fields of :class:`Match` that must not be just any text."""

    identity_id: _Name | None
    identity_name: _Name
    reason: _Reason


class _Sighting(_Saved):
    sighting_id: str
    track_id: _Count
    started_at: _Time
    seen_at: _Time
    box: tuple[_Finite, _Finite, _Finite, _Finite]
    frame_size: tuple[_Px, _Px]
    detections: _Count
    transitions: _Count
    last_event_id: Annotated[str, Field(pattern=r"^[0-9a-f]{0,64}$")] = ""
    announced_identity: _Name | None
    unknown_id: Annotated[str, Field(pattern=r"^(u-[0-9a-f]{1,64})?$")]
    rejection: _Reason
    template: _Template
    match: Match | None
    candidate: Candidate | None
    account: _Account

    @field_validator("match", mode="before")
    @classmethod
    def _verdict_is_plain(cls, value: Any) -> Any:
        if value is not None:
            _Verdict.model_validate(value)
        return value


class _State(_Saved):
    format: Literal["facestream.sightings.v1"]
    camera_id: str
    model_id: str
    preprocessing: str
    dimension: int = Field(ge=1, le=65_536)
    sightings: list[_Sighting]


def to_state(camera_id: str, context: RecognitionContext, sightings: Iterable[Sighting]) -> dict[str, Any]:
    """``sightings`` of a camera as JSON values: what the worker that reads it next needs to go on with them."""
    return {
        "format": FORMAT,
        "camera_id": camera_id,
        "model_id": context.model_id,
        "preprocessing": context.preprocessing_digest,
        "dimension": context.dimension,
        "sightings": [_saved(sighting) for sighting in sightings],
    }


def from_state(
    state: Mapping[str, Any], camera_id: str, context: RecognitionContext, *, at: datetime, pts_s: float
) -> list[Sighting]:
    """The sightings in ``state``, which go on with a frame captured ``at``; it lies at ``pts_s`` of its source.

    What was seen too long before it, or with another model, is to end at once.

    Raises:
        ValueError: ``state`` is not what :func:`to_state` gives for this camera.
    """
    try:
        # JSON has no infinite numbers, and one that is not a number would make every later comparison false.
        json.dumps(state, allow_nan=False, default=dict)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    try:
        read = _State.model_validate(dict(state))
    except ValidationError as error:
        raise ValueError(first_problem(error)) from None
    if read.camera_id != camera_id:
        raise ValueError(f"it is of the camera {read.camera_id[:64]!r}")
    for saved in read.sightings:
        # Names of files and keys are made of it.
        if saved.sighting_id != sighting_id(camera_id, saved.started_at, saved.track_id):
            raise ValueError(f"{saved.sighting_id[:64]!r} is not the id of a sighting of this camera at that time")
    comparable = (
        EmbedderId(read.model_id, read.preprocessing) == context.embedder and read.dimension == context.dimension
    )
    return [_restored(saved, camera_id, context, comparable, at, pts_s) for saved in read.sightings]


def last_seen(state: Mapping[str, Any]) -> datetime | None:
    """When somebody in ``state`` was seen last; None if nobody is in it, or it cannot be read."""
    try:
        return max((saved.seen_at for saved in _State.model_validate(dict(state)).sightings), default=None)
    except ValidationError:
        return None


def _saved(sighting: Sighting) -> dict[str, Any]:
    account = sighting.account.to_json()
    return {
        "sighting_id": sighting.sighting_id,
        "track_id": sighting.track_id,
        "started_at": sighting.started_at.isoformat(),
        "seen_at": sighting.seen_at.isoformat(),
        "box": list(sighting.box),
        "frame_size": list(sighting.frame_size),
        "detections": sighting.detections,
        "transitions": sighting.transitions,
        "last_event_id": sighting.last_event_id,
        "announced_identity": sighting.announced_identity,
        "unknown_id": sighting.unknown_id,
        "rejection": sighting.rejection,
        "template": sighting.template.to_json(),
        "match": asdict(sighting.match) if sighting.match else None,
        "candidate": asdict(sighting.candidate) if sighting.candidate else None,
        # The verdict part of an account is made anew when the sighting ends.
        "account": {name: account[name] for name in _Account.model_fields},
    }


def _restored(
    saved: _Sighting, camera_id: str, context: RecognitionContext, comparable: bool, at: datetime, pts_s: float
) -> Sighting:
    def place(moment: datetime) -> float:
        # A clock that was set back must not put the past into the future.
        return pts_s - max(0.0, (at - moment) / timedelta(seconds=1))

    sighting = Sighting(
        sighting_id=saved.sighting_id,
        camera_id=camera_id,
        track_id=saved.track_id,
        started_at=saved.started_at,
        started_pts_s=place(saved.started_at),
        dimension=context.dimension,
        match=saved.match,
        candidate=saved.candidate,
        detections=saved.detections,
        announced_identity=saved.announced_identity,
        transitions=saved.transitions,
        last_event_id=saved.last_event_id,
        box=saved.box,
        frame_size=saved.frame_size,
        seen_pts_s=place(saved.seen_at),
        lost=True,
        rejection=saved.rejection,
        unknown_id=saved.unknown_id,
    )
    sighting.account = Account.from_json(saved.account.model_dump())
    sighting.seen_at = saved.seen_at
    if comparable:
        sighting.template = TrackTemplate.from_json(saved.template.model_dump(), context.dimension)
    due_pts_s = sighting.seen_pts_s + context.config.linger_s
    # A person who is still in time is given the time that a verdict takes.
    lasts = comparable and due_pts_s > pts_s
    sighting.resumed_until_pts_s = max(due_pts_s, pts_s + context.config.verdict_timeout_s) if lasts else pts_s
    return sighting
