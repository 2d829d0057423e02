"""What the operations on unknown people answer with, and what they are given; and on steps that can be undone."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from worker.api.documents import Given, Id, Name, Risk


class UnknownDocument(BaseModel):
    """Somebody who is not enrolled; as ``facestream unknown list --json`` has it."""

    unknown_id: str
    sightings: int
    first_seen: str
    last_seen: str
    cameras: list[str]
    model_id: str
    ignored: bool = Field(description="nobody wants to be asked about this person")


class UnknownsPage(BaseModel):
    """Some of the unknown people, those first who were seen most often."""

    items: list[UnknownDocument]
    next_cursor: str | None
    total: int


class Suggestion(BaseModel):
    """Somebody enrolled whom an unknown person resembles."""

    identity_id: str
    identity_name: str
    similarity: float = Field(description="cosine to the nearest enrolled face")
    stranger_rate: float | None = Field(
        description="share of pairs of different people that reach this similarity, in the evidence of the calibration "
        "or of the model; null where there is none"
    )


class UnknownDetail(UnknownDocument):
    """One unknown person, whom they resemble, and what naming them risks."""

    suggestions: list[Suggestion]
    risk: Risk | None = Field(description="null where nobody is enrolled yet")


class AlikeDocument(BaseModel):
    """Unknown people who resemble the same person."""

    identity_id: str
    identity_name: str
    unknown_ids: list[str] = Field(description="the most similar first")
    sightings: int = Field(description="how many past sightings a name would change")
    least: float = Field(description="the lowest of their similarities to the person")
    most: float
    stranger_days: float | None = Field(
        description="in about so many days one stranger is taken for this person at the threshold, if as many come "
        "as did; null where the rate is not known"
    )


class AlikePage(BaseModel):
    """Everybody whom unknown people resemble; the one with the most sightings first."""

    items: list[AlikeDocument]


class NameRequest(Given):
    """Who it is; a person who is enrolled already gets further samples."""

    identity_name: Name


class NamedDocument(BaseModel):
    """As ``facestream unknown enroll --json`` has it."""

    unknown_id: str
    identity_id: str
    identity_name: str
    samples: int
    corrected: int = Field(description="how many past sightings were corrected")
    step: str = Field(description="takes the name back, by ``POST /steps/{step}/undo``")


class MergeRequest(Given):
    """Another id of the same person, which goes."""

    other: Id


class SplitRequest(Given):
    """The sightings that show somebody else."""

    sighting_ids: Annotated[list[Id], Field(min_length=1, max_length=10_000)]


class SplitDocument(BaseModel):
    """A split that can be undone."""

    step: str
    unknown_id: str
    new_unknown_id: str
    sightings: int


class StepDocument(BaseModel):
    """A step that can be undone."""

    step: str
    unknown_id: str
    merged: str


class UndoneDocument(BaseModel):
    """Whose sightings went back to whom; after a name was taken back, ``from`` is the id of the person named."""

    step: str
    from_: str = Field(alias="from")
    to: str

    model_config = ConfigDict(populate_by_name=True)
