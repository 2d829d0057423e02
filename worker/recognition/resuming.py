"""The sightings of a camera as JSON: what whoever reads the camera next needs to go on with them."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from worker.config import RecognitionConfig
from worker.history.account import Account
from worker.history.store import EmbedderId
from worker.recognition.matching import TrackTemplate
from worker.recognition.sighting import Sighting
from worker.types import Candidate, Match

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


def to_state(camera_id: str, embedder: EmbedderId, dimension: int, sightings: Iterable[Sighting]) -> dict[str, Any]:
    """``sightings``, made with ``embedder``, as JSON values."""
    return {
        "format": FORMAT,
        "camera_id": camera_id,
        "model_id": embedder.model_id,
        "preprocessing": embedder.preprocessing_digest,
        "dimension": dimension,
        "sightings": [_saved(sighting) for sighting in sightings],
    }


def from_state(
    state: Mapping[str, Any],
    camera_id: str,
    embedder: EmbedderId,
    dimension: int,
    config: RecognitionConfig,
    *,
    at: datetime,
    pts_s: float,
) -> list[Sighting]:
    """The sightings in ``state``, to be gone on with from a frame captured ``at``, which is at ``pts_s`` of its source.

    What was seen too long before it, or with another embedder, is to end at once.

    Raises:
        ValueError: ``state`` is not what :func:`to_state` gives for this camera.
    """
    # What is not finite is no number in JSON, and would make every later comparison false.
    json.dumps(state, allow_nan=False, default=dict)
    try:
        read = _State.model_validate(dict(state))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    if read.camera_id != camera_id:
        raise ValueError(f"it is of the camera {read.camera_id[:64]!r}")
    comparable = EmbedderId(read.model_id, read.preprocessing) == embedder and read.dimension == dimension
    return [_restored(saved, camera_id, dimension, comparable, config, at, pts_s) for saved in read.sightings]


def last_seen(state: Mapping[str, Any]) -> datetime | None:
    """When anybody in ``state`` was seen last; None: nobody is in it, or it cannot be read."""
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
    saved: _Sighting,
    camera_id: str,
    dimension: int,
    comparable: bool,
    config: RecognitionConfig,
    at: datetime,
    pts_s: float,
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
        dimension=dimension,
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
        sighting.template = TrackTemplate.from_json(saved.template.model_dump(), dimension)
    due_pts_s = sighting.seen_pts_s + config.linger_s
    # Whoever is still in time is given the time that a verdict takes.
    lasts = comparable and due_pts_s > pts_s
    sighting.resumed_until_pts_s = max(due_pts_s, pts_s + config.verdict_timeout_s) if lasts else pts_s
    return sighting
