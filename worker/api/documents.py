"""What the operations answer with, and what they are given. Times are RFC 3339 in UTC."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from worker.wire import rfc3339

if TYPE_CHECKING:
    from worker.gallery.consents import Consent
    from worker.gallery.contents import Person, Sample
    from worker.history.glances import Glance

MOST_PHOTOS: Final = 50

Colour = Literal["", "red", "orange", "yellow", "green", "blue", "violet", "grey"]
Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Id = Annotated[str, StringConstraints(min_length=1, max_length=300)]


class Given(BaseModel):
    """What is sent to an operation: a field that is not known is a mistake."""

    model_config = ConfigDict(extra="forbid")


class ProblemDocument(BaseModel):
    """An error (RFC 9457)."""

    type: str = Field("about:blank", description="kind of the problem")
    title: str = Field(description="the kind in words")
    status: int = Field(description="HTTP status")
    detail: str = Field(description="what is wrong with this request, and what to do next")


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


class ErasurePlan(BaseModel):
    """How much there is of somebody, of what; all of it goes if they are erased."""

    name: str
    people: int
    samples: int
    crops: int = Field(description="kept pictures of enrolled faces")
    unknown_people: int
    past_sightings: int
    frames_of_others: int = Field(description="kept frames of others in which they may be")


class ErasedDocument(BaseModel):
    """Somebody was erased."""

    erasure_id: str
    asked_at: str
    finished_at: str
    whole: bool = Field(description="all within reach is gone, and each worker has said so")
    receipt: dict[str, Any] = Field(
        description="signed, as 'facestream forget' writes it: 'places' says what was removed where and when, "
        "'remains' what is out of reach and what to do about it. It names nobody"
    )


class ErasuresPage(BaseModel):
    """Some of the erasures, the newest first."""

    items: list[ErasedDocument]
    next_cursor: str | None


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


class Risk(BaseModel):
    """How often naming goes wrong here."""

    threshold: float = Field(description="cosine from which the stream names somebody")
    enrolled_samples: int
    is_calibrated: bool
    false_match_rate: float | None = Field(description="of one comparison at the threshold; null where not known")
    stranger_rate: float | None = Field(
        description="share of strangers who are taken for somebody at the threshold; null where not known"
    )
    from_: str = Field(alias="from", description="where the rates come from, in words")

    model_config = ConfigDict(populate_by_name=True)


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


class WrongDocument(BaseModel):
    """Something that is wrong now."""

    what: str
    alert: str = Field(description="the alert of Prometheus that says the same; empty if there is none")
    runbook: str = Field(description="the page in 'docs/runbooks' that says what to do; empty if there is none")


class StatusDocument(BaseModel):
    """How everything is."""

    version: str
    workers: list[dict[str, Any]] = Field(description="as 'facestream status --json' has them")
    unowned: dict[str, str] = Field(description="cameras of the fleet that nobody reads, and why")
    problems: list[str] = Field(description="what is wrong now, one line each")
    wrong: list[WrongDocument] = Field(description="the same, with what to do")
    people: int | None
    gallery_version: int | None


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
