"""The sightings of a camera as JSON, for the worker that reads it next; whoever wrote it is not trusted."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, field_validator

from worker.config import ZoneName
from worker.erased import Erased
from worker.events.codec import sighting_id
from worker.history.records import Account, EmbedderId
from worker.recognition.matching import TrackTemplate
from worker.recognition.sighting import RecognitionContext, Sighting
from worker.redaction import first_problem
from worker.types import Candidate, Match

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
    groups: Annotated[tuple[Annotated[str, Field(pattern=r"^[^,]{1,60}$")], ...], Field(max_length=100)] = ()


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
    zones: Annotated[list[ZoneName], Field(max_length=32)] = []
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


def without_erased(state: Mapping[str, Any], erased: Erased) -> dict[str, Any] | None:
    """``state`` without the sightings of those who were erased; None if it has another form than :func:`to_state`
    gives, so that nobody can tell whom it holds."""
    sightings = state.get("sightings")
    if not isinstance(sightings, list) or not all(isinstance(sighting, dict) for sighting in sightings):
        return None
    kept = [sighting for sighting in sightings if not _is_of(sighting, erased)]
    # Of somebody else, whom they resembled: the next verdict fills it again.
    return {**state, "sightings": [one | {"candidate": None} if _mentions(one, erased) else one for one in kept]}


def _is_of(sighting: Mapping[str, Any], erased: Erased) -> bool:
    ids = [sighting.get(name) for name in ("sighting_id", "unknown_id", "announced_identity")]
    return any(an_id in erased for an_id in [*ids, *_ids_in(sighting.get("match"))])


def _mentions(sighting: Mapping[str, Any], erased: Erased) -> bool:
    return any(an_id in erased for an_id in _ids_in(sighting.get("candidate")))


def _ids_in(verdict: Any) -> list[Any]:
    return [value for name, value in verdict.items() if name.endswith("_id")] if isinstance(verdict, dict) else []


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
        "zones": sorted(sighting.zones),
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
        zones=set(saved.zones),
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
