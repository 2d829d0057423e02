"""One visit of one person to one camera: what is known of it while it lasts and shortly after, and how it is kept."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from worker.boxes import iou_matrix
from worker.config import RecognitionConfig
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

    def withdraw_name(self) -> None:
        """Takes the name back: somebody else in the picture is more similar to that person."""
        if self.match is not None:
            self.match = replace(self.match, identity_id=None, identity_name="", reason="identity_taken")

    def seems_the_same(self, later: "Sighting", threshold: float) -> bool:
        """Whether ``later`` shows this person again: by the faces, or, if no face was good enough to tell, because the
        track is the same."""
        if later.template.count:
            return self.template.count > 0 and self.template.similarity(later.template) >= threshold
        if self.resumed_until_pts_s is None:
            # After a longer pause somebody else may stand in the place, and the tracker cannot tell.
            return self.track_id == later.track_id and later.started_pts_s - self.seen_pts_s <= SAME_TRACK_S
        # Tracks of another worker, or of an earlier run, were counted anew: only the place is left to compare.
        boxes = np.array([self.box, later.box], np.float32)
        return bool(iou_matrix(boxes[:1], boxes[1:])[0, 0] >= SAME_PLACE_IOU)


def one_face_per_person(present: Iterable[Sighting]) -> None:
    """If several faces that are present at once were given the same name, only the most similar keeps it."""
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


FORMAT: Final = "facestream.sightings.v1"

_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=0)]


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
    rejected: dict[str, _Count]
    embedded: _Count
    continued_by: list[int]


class _Sighting(_Saved):
    sighting_id: str = Field(min_length=1)
    track_id: int
    started_at: AwareDatetime
    seen_at: AwareDatetime
    box: tuple[_Finite, _Finite, _Finite, _Finite]
    frame_size: tuple[_Count, _Count]
    detections: _Count
    transitions: _Count
    last_event_id: str = ""
    announced_identity: str | None
    unknown_id: str
    rejection: str
    template: _Template
    match: Match | None
    candidate: Candidate | None
    account: _Account


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
    # JSON has no infinite numbers, and one that is not a number would make every later comparison false.
    json.dumps(state, allow_nan=False, default=dict)
    try:
        read = _State.model_validate(dict(state))
    except ValidationError as error:
        raise ValueError(first_problem(error)) from None
    if read.camera_id != camera_id:
        raise ValueError(f"it is of the camera {read.camera_id[:64]!r}")
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
