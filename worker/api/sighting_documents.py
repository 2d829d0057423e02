"""What the operations on sightings and photos answer with, and what they are given."""

from typing import Literal

from pydantic import BaseModel, Field

from worker.api.documents import Given, Id


class TimelineEntry(BaseModel):
    """One moment of a sighting."""

    at: str | None = Field(description="null where the time is not kept")
    what: Literal["started", "ended", "denied", "named"] = Field(
        description="ended: with the verdict of the camera; denied: somebody said that it shows somebody else than the "
        "person named before; named: somebody gave a name"
    )
    identity_id: str = Field(description="whom it was taken for from then on; empty: somebody unknown, or not kept")
    identity_name: str
    unknown_id: str
    similarity: float | None
    threshold: float | None
    not_name: str = Field(description="of 'denied': the name that was wrong; empty if that person has been removed")


class Timeline(BaseModel):
    """What is kept of the verdicts of a sighting, oldest first."""

    items: list[TimelineEntry]


class DenialDocument(BaseModel):
    """Somebody said that a sighting does not show this person."""

    at: str
    identity_id: str
    identity_name: str


class SightingDocument(BaseModel):
    """Somebody was seen; as ``facestream explain --json`` has it."""

    sighting_id: str
    camera_id: str
    started_at: str
    ended_at: str
    identity_id: str
    identity_name: str
    unknown_id: str
    quality: float | None
    model_id: str
    denied: list[DenialDocument]


class SightingsPage(BaseModel):
    """Some of the sightings, newest first."""

    items: list[SightingDocument]
    next_cursor: str | None = Field(description="leads to the next page; null on the last one")


class Explanation(BaseModel):
    """What happened to the faces of a sighting, and why it ended as it did."""

    sighting_id: str
    text: str = Field(description="one sentence for people")
    faces: int
    rejected: dict[str, int] = Field(description="how many faces were refused, by reason")
    embedded: int
    nearest: str
    similarity: float | None
    runner_up: str
    runner_up_similarity: float | None
    threshold: float | None
    threshold_group: str = Field(description="the group that the threshold belongs to; empty if it is not of a group")
    reason: str


class FoundSighting(SightingDocument):
    """A sighting that resembles a photo."""

    similarity: float


class Found(BaseModel):
    """The sightings of the person in a photo, the most similar first."""

    items: list[FoundSighting]
    threshold: float


class FaceDocument(BaseModel):
    """A face in a photo."""

    face: int = Field(description="0 for the one on the left")
    box: list[float] = Field(description="x1, y1, x2, y2 in px of the upright photo")
    picture: str = Field(description="the face and what is around it: a JPEG in base64")


class FacesPage(BaseModel):
    """The faces in a photo, from left to right."""

    items: list[FaceDocument]


class NearDocument(BaseModel):
    """Somebody enrolled whom a sighting resembles."""

    identity_id: str
    identity_name: str
    similarity: float = Field(description="cosine to the nearest of the person's faces, as they are enrolled now")
    sample_id: str = Field(description="that face")
    photo: str = Field(description="name of the file it came from, or of the sighting")
    samples: int = Field(description="how many faces of the person are enrolled")


class NearPage(BaseModel):
    """The nearest people, the most similar first."""

    items: list[NearDocument]


class CorrectionRequest(Given):
    """Whom a sighting shows; null: somebody unknown."""

    identity_id: Id | None = None


class CorrectionDocument(BaseModel):
    """What a correction has changed; as ``facestream correct --json`` has it."""

    sighting_id: str
    event_id: str
    identity_id: str
    identity_name: str
    unknown_id: str
    previous_id: str
    previous_name: str
    counter_example: bool
    caveat: str
