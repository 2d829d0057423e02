"""What the operations on people and groups answer with, and what they are given."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import BaseModel, Field

from worker.api.documents import Given, Name, Risk
from worker.wire import rfc3339

if TYPE_CHECKING:
    from worker.gallery.consents import Consent
    from worker.gallery.contents import Person, Sample
    from worker.history.glances import Glance

MOST_PHOTOS: Final = 50
Colour = Literal["", "red", "orange", "yellow", "green", "blue", "violet", "grey"]


class ConsentSettings(Given):
    """From when until when a person may be recognised; outside of that time, no worker names them."""

    since: datetime | None = Field(None, description="null: at once")
    until: datetime | None = Field(None, description="null: without an end")
    basis: Annotated[str, Field(max_length=200)] = Field("", description="why, such as 'contract'")
    note: Annotated[str, Field(max_length=1000)] = ""


class ConsentDocument(BaseModel):
    """What is noted of a person's consent; ``since`` and ``until`` are empty where there is no bound."""

    since: str
    until: str
    basis: str
    note: str
    state: Literal["given", "ends_soon", "over", "not_yet"] = Field(
        description="now: given (ends_soon: it ends within 30 days), or the person is not recognised: over, not_yet"
    )


class LastSeen(BaseModel):
    """Where somebody was seen last."""

    sighting_id: str
    camera_id: str
    at: str


class PersonDocument(BaseModel):
    """Somebody who is enrolled."""

    identity_id: str
    identity_name: str
    samples: int = Field(description="how many faces of the person are enrolled")
    groups: list[str] = Field(description="the groups that the person is in, by name")
    consent: ConsentDocument | None = Field(description="null: nothing bounds the time")
    last_seen: LastSeen | None = Field(None, description="null where it was not asked for, or nobody was seen")


class SampleDocument(BaseModel):
    """One enrolled face."""

    sample_id: str
    photo: str = Field(description="name of the file it came from, or of the sighting")
    quality: float = Field(description="0..1")
    added_at: str


class PeoplePage(BaseModel):
    """Some of the people, by name."""

    items: list[PersonDocument]
    next_cursor: str | None = Field(description="leads to the next page; null on the last one")
    total: int = Field(description="how many there are on all pages")
    consents_ending: int = Field(description="of how many people in the gallery the consent ends within 30 days")
    consents_over: int = Field(description="of how many it is over: they are not recognised")


class SamplesPage(BaseModel):
    """The faces of one person."""

    items: list[SampleDocument]


class FindingDocument(BaseModel):
    """Something to look at in the gallery; as ``facestream gallery audit --json`` has it."""

    kind: str
    people: list[str] = Field(description="names; the person to act on comes first")
    identity_ids: list[str]
    sample_ids: list[str] = Field(description="the faces that show it")
    photos: list[str]
    similarity: float | None = Field(description="a cosine; null where it is not about one")
    detail: str
    advice: str


class FindingsPage(BaseModel):
    """Some of the findings, the gravest first."""

    state: Literal["ready", "working", "too_large"] = Field(
        description="working: everybody is being compared with everybody, ask again in a moment; too_large: only "
        "'facestream gallery audit' does that"
    )
    items: list[FindingDocument]
    next_cursor: str | None


class PersonChange(Given):
    """A new name."""

    identity_name: Name


class Memberships(Given):
    """The groups of a person, all of them."""

    groups: Annotated[list[Name], Field(max_length=50)]


class GroupSettings(Given):
    """What is set for a group."""

    threshold: Annotated[float | None, Field(ge=-1, le=1)] = Field(
        None, description="cosine from which its people are named, in place of every other threshold; null: as others"
    )
    colour: Colour = ""
    advice: Annotated[str, Field(max_length=300)] = Field("", description="what to do when one of its people is seen")


class GroupDocument(BaseModel):
    """A group of people."""

    group: str
    threshold: float | None
    colour: str
    advice: str
    people: int = Field(description="how many people are in it")


class Groups(BaseModel):
    """The groups, by name."""

    items: list[GroupDocument]


class Removed(BaseModel):
    """Who has been removed."""

    identity_id: str
    identity_name: str
    samples: int


class PhotoDocument(BaseModel):
    """What became of one photo; ``reason`` says why it was not taken."""

    path: str
    identity_id: str
    identity_name: str
    accepted: bool
    reason: str
    detail: str
    quality: float


class Enrolled(BaseModel):
    """What became of the photos."""

    photos: list[PhotoDocument]


class PeopleMergePlan(BaseModel):
    """What changes if two enrolled people are made one; ``other_id`` goes."""

    identity_id: str
    identity_name: str
    other_id: str
    other_name: str
    samples: int = Field(description="how many faces the person has then")
    moved: int = Field(description="how many of them are those of the other one")
    groups: list[str] = Field(description="in which the person is then")
    joined: list[str] = Field(description="those of them in which the person is not yet")
    threshold: float | None = Field(
        description="cosine from which the person is named then, because of a group; null: as everybody"
    )
    consent: ConsentDocument | None = Field(description="what both allow; null: nothing bounds the time")
    consent_changes: bool = Field(description="the person's consent is another one now")
    sightings: int = Field(description="how many past sightings of the other one get the name")
    similarity: float = Field(description="cosine between the two most similar faces of the two")
    stranger_rate: float | None = Field(
        description="share of pairs of different people that reach this similarity; null where it is not known"
    )
    risk: Risk


class PeopleMerged(BaseModel):
    """Two enrolled people are one."""

    step: str = Field(description="takes it back, by ``POST /steps/{step}/undo``")
    identity_id: str
    identity_name: str
    merged: str = Field(description="the id that has gone")
    merged_name: str
    samples: int = Field(description="how many faces of the person are enrolled now")
    corrected: int = Field(description="how many past sightings were corrected")


def person_document(person: "Person", seen: "Glance | None" = None) -> PersonDocument:
    """Of an enrolled person, who was ``seen`` last there and then."""
    return PersonDocument(
        identity_id=person.identity_id, identity_name=person.name, samples=len(person.samples),
        groups=list(person.groups), consent=None if person.consent is None else _consent(person.consent),
        last_seen=None if seen is None
        else LastSeen(sighting_id=seen.sighting_id, camera_id=seen.camera_id, at=rfc3339(seen.at)),
    )  # fmt: skip


def _consent(consent: "Consent") -> ConsentDocument:
    now = datetime.now(UTC)
    state: Literal["given", "ends_soon", "over", "not_yet"] = "given" if consent.is_given(now) else "not_yet"
    if consent.is_over(now):
        state = "over"
    elif consent.ends_soon(now):
        state = "ends_soon"
    return ConsentDocument(**consent.document(), state=state)


def sample_document(sample: "Sample") -> SampleDocument:
    """Of an enrolled face."""
    return SampleDocument(
        sample_id=sample.sample_id, photo=sample.photo, quality=round(sample.quality, 3), added_at=sample.added_at
    )
