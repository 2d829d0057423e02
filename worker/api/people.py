"""Who is known: listed, renamed, removed, added from photos."""

import dataclasses
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Final, Literal

from fastapi import APIRouter, File, Form, Query, Response, UploadFile

from worker.api.access import Changer, IdempotencyKey, Reader, SharedParts, once
from worker.api.paging import MOST, IfMatch, cursor_of, etag_of, place_of, require_match
from worker.api.parts import Parts
from worker.api.person_documents import (
    MOST_PHOTOS,
    ConsentSettings,
    Enrolled,
    PeoplePage,
    PersonChange,
    PersonDocument,
    PhotoDocument,
    Removed,
    SamplesPage,
    person_document,
    sample_document,
)
from worker.api.problems import Problem, not_found, responses, unusable
from worker.api.sight import in_sight
from worker.errors import ConfigError
from worker.files import without_name
from worker.gallery.consents import Consent
from worker.gallery.contents import Contents, Person
from worker.gallery.enrolment import enroll_named
from worker.gallery.gallery import Require
from worker.gallery.opening import prune_crops, remove_person
from worker.history.glances import Glance
from worker.names import clean_text, person_name
from worker.wire import rfc3339

router = APIRouter(tags=["people"])

Consents = Literal["ending", "over"]
_PHOTO_NAME: Final = 150


def find(parts: Parts, identity_id: str) -> Person:
    """The person with this id.

    Raises:
        Problem: nobody has it.
    """
    if parts.has_gallery() and (gallery := parts.gallery()).knows(identity_id):
        person = gallery.person(identity_id)
        samples = [dataclasses.replace(sample, photo=origin(parts, sample.photo)) for sample in person.samples]
        return dataclasses.replace(person, samples=type(person.samples)(samples))
    raise nobody(identity_id)


def nobody(identity_id: str) -> Problem:
    """There is no such person."""
    return not_found(f"nobody with the id {identity_id} is enrolled; the person may have been removed")


def origin(parts: Parts, photo: str) -> str:
    """Where a sample came from, without the name of a sighting that is not in sight."""
    kind, _, subject = photo.partition(" ")
    if in_sight() is None or kind not in {"sighting", "unknown"}:
        return photo
    with parts.history() as history:
        return photo if kind == "sighting" and history.sightings(sighting_id=subject) else kind


def etag(person: Person) -> str:
    """Another one after each change of the person."""
    consent = None if person.consent is None else person.consent.document()
    samples = [sample.sample_id for sample in person.samples]
    return etag_of(person.identity_id, person.name, samples, person.groups, consent)


def unchanged(identity_id: str, if_match: str | None) -> Require:
    """What refuses a change if the person is gone, or is another one than the ETag says. The gallery asks it while
    nobody else can change anything."""

    def require(contents: Contents) -> None:
        require_match(if_match, etag(person_in(contents, identity_id)))

    return require


def person_in(contents: Contents, identity_id: str) -> Person:
    """
    Raises:
        Problem: nobody has this id.
    """
    if identity_id not in contents.names:
        raise nobody(identity_id)
    return contents.person(identity_id, contents.samples_of(identity_id))


def matching(people: Sequence[Person], words: str) -> list[Person]:
    """Those whose name holds each of the words, in capital letters or not."""
    wanted = person_name(words).casefold().split()
    return [person for person in people if all(word in person.name.casefold() for word in wanted)]


def page(
    parts: Parts,
    words: str,
    cursor: str | None,
    limit: int,
    group: str = "",
    *,
    consent: Consents | None = None,
    seen: bool = False,
) -> PeoplePage:
    """Some of the people whose name holds ``words``, of ``group`` if one is named, and with a ``consent`` of this kind;
    ``seen``: also where each was seen last, of which the audit log tells."""
    found = [person for person in matching(parts.people(), words) if not group or group in person.groups]
    if consent is not None:
        found = [person for person in found if _has(person, consent)]
    total = len(found)
    if cursor is not None:
        after = place_of(cursor, str, str)
        found = [person for person in found if (person.name, person.identity_id) > after]
    items = found[:limit]
    more = cursor_of(items[-1].name, items[-1].identity_id) if len(found) > limit else None
    last = last_seen(parts, [person.identity_id for person in items]) if seen and items else {}
    soon, over = parts.gallery().consents_to_mind() if parts.has_gallery() else (0, 0)
    return PeoplePage(
        items=[person_document(each, last.get(each.identity_id)) for each in items], next_cursor=more,
        total=total, consents_ending=soon, consents_over=over,
    )  # fmt: skip


def _has(person: Person, kind: Consents) -> bool:
    if person.consent is None:
        return False
    now = datetime.now(UTC)
    return person.consent.ends_soon(now) if kind == "ending" else person.consent.is_over(now)


def last_seen(parts: Parts, identity_ids: Sequence[str]) -> dict[str, Glance]:
    """When and where each of these people was seen last; the audit log tells of all in one line."""
    parts.looked_up("people seen", *identity_ids)
    with parts.history() as history:
        return history.last_seen(identity_ids)


def set_consent(
    parts: Parts, identity_id: str, settings: ConsentSettings | None, if_match: str | None = None
) -> Person:
    """Notes from when until when a person may be recognised; None: nothing bounds that.

    Raises:
        Problem: nobody has the id, they were changed meanwhile, or it would end before it begins.
        GalleryError: the gallery cannot be written.
    """
    find(parts, identity_id)
    consent = None
    if settings is not None:
        since, until = (rfc3339(_in_utc(at)) if at else "" for at in (settings.since, settings.until))
        try:
            consent = Consent(since, until, clean_text(settings.basis), clean_text(settings.note))
        except ConfigError as error:
            raise unusable(error) from None
    return parts.gallery().set_consent(identity_id, consent, require=unchanged(identity_id, if_match))


def _in_utc(at: datetime) -> datetime:
    """
    Raises:
        Problem: it is too near to the first or the last year that there is.
    """
    try:
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except OverflowError:
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"{at} cannot be a time of UTC: give another year") from None


def rename(parts: Parts, identity_id: str, name: str, if_match: str | None = None) -> Person:
    """Gives a person another name.

    Raises:
        Problem: nobody has the id, or they were changed meanwhile.
        GalleryError: the name is empty or taken, or the gallery cannot be written.
    """
    find(parts, identity_id)
    return parts.gallery().rename(identity_id, name, require=unchanged(identity_id, if_match))


def remove(parts: Parts, identity_id: str, if_match: str | None = None) -> Person:
    """Removes a person with all samples and crops, and what was said of past sightings of them.

    Raises:
        Problem: nobody has the id, or they were changed meanwhile.
        GalleryError: the gallery cannot be written.
        HistoryError: the person is removed, but the history cannot be written.
    """
    find(parts, identity_id)
    removed = remove_person(parts.gallery(), identity_id, require=unchanged(identity_id, if_match))
    with parts.history() as history:
        history.forget_denials_of(identity_id)
    return removed


def remove_sample(parts: Parts, identity_id: str, sample_id: str, if_match: str | None = None) -> None:
    """Removes one face of a person who has others.

    Raises:
        Problem: there is no such face of this person, or it is the last one.
        GalleryError: the gallery cannot be written.
    """
    find(parts, identity_id)

    def require(contents: Contents) -> None:
        person = person_in(contents, identity_id)
        require_match(if_match, etag(person))
        if all(sample.sample_id != sample_id for sample in person.samples):
            raise not_found(f"{person.name} has no sample {sample_id}; it may have been removed")
        if len(person.samples) == 1:
            raise Problem(HTTPStatus.CONFLICT, f"this is the last sample of {person.name}: remove the person instead")

    parts.gallery().remove_sample(sample_id, require=require)
    prune_crops(parts.gallery())


def enroll(parts: Parts, name: str, photos: Sequence[UploadFile]) -> list[PhotoDocument]:
    """Enrols photos of one person; says of each what became of it.

    Raises:
        Problem: there is no name, or no photo, or there are too many.
        GalleryError: the gallery cannot be written.
        ModelError: the networks cannot be loaded.
    """
    name = person_name(name)
    if not name or len(name) > _PHOTO_NAME:
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"a name has 1 to {_PHOTO_NAME} characters")
    if not 0 < len(photos) <= MOST_PHOTOS:
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"send 1 to {MOST_PHOTOS} photos at a time")
    networks = parts.networks()
    embedder = networks.embedder
    gallery = parts.gallery_like(embedder.model_id, embedder.preprocessing_digest, embedder.dimension)
    named = [(Path(str(number), _called(photo)), name) for number, photo in enumerate(photos)]
    with ExitStack() as opened:
        lie_at = {
            path: opened.enter_context(without_name(photo.file)) for (path, _), photo in zip(named, photos, strict=True)
        }
        results = enroll_named(named, gallery, networks.detector, embedder, lie_at=lie_at)
        made = {result.path: dataclasses.asdict(result) | {"path": result.path.name} for result in results}
    # A refused photo's reason may name the file; the number is ours, since two may have the same name.
    return [
        PhotoDocument(**made[path] | {"detail": made[path]["detail"].replace(str(path), path.name)})
        for path, _ in named
        if path in made
    ]


def _called(photo: UploadFile) -> str:
    """What the file was called, without folders."""
    name = Path((photo.filename or "").replace("\\", "/")).name.replace("\0", "")
    return name[-100:].lstrip(".") or "photo"


@router.get("/people", operation_id="list_people")
def list_people(
    _caller: Reader,
    parts: SharedParts,
    q: Annotated[str, Query(max_length=200, description="words that the name holds")] = "",
    group: Annotated[str, Query(max_length=200, description="people of this group alone")] = "",
    consent: Annotated[
        Consents | None, Query(description="those alone whose consent ends within 30 days, or is over")
    ] = None,
    seen: Annotated[bool, Query(description="also where each was seen last; the audit log tells of it")] = False,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=MOST)] = 50,
) -> PeoplePage:
    """Everybody who is enrolled, by name."""
    return page(parts, q, cursor, limit, group, consent=consent, seen=seen)


@router.post("/people", operation_id="enroll_person", response_model=Enrolled, responses=responses(HTTPStatus.CONFLICT))
def enroll_person(
    caller: Changer,
    parts: SharedParts,
    identity_name: Annotated[str, Form(min_length=1, max_length=_PHOTO_NAME)],
    photos: Annotated[list[UploadFile], File(description="photos that show this person alone")],
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Enrol photos of one person, as ``facestream enroll`` does; who is enrolled already gets further samples."""
    asked = f"enroll {identity_name} {[(photo.filename, photo.size) for photo in photos]}"

    def make() -> tuple[HTTPStatus, str]:
        return HTTPStatus.OK, Enrolled(photos=enroll(parts, identity_name, photos)).model_dump_json()

    return once(parts, caller, idempotency_key, asked, make)


@router.get("/people/{identity_id}", operation_id="show_person", responses=responses(HTTPStatus.NOT_FOUND))
def show_person(_caller: Reader, parts: SharedParts, identity_id: str, response: Response) -> PersonDocument:
    """One person, and where they were seen last."""
    person = find(parts, identity_id)
    response.headers["ETag"] = etag(person)
    return person_document(person, last_seen(parts, [identity_id]).get(identity_id))


@router.put(
    "/people/{identity_id}/consent",
    operation_id="set_consent",
    responses=responses(HTTPStatus.NOT_FOUND, HTTPStatus.PRECONDITION_FAILED, HTTPStatus.UNPROCESSABLE_ENTITY),
)
def put_consent(
    _caller: Changer,
    parts: SharedParts,
    identity_id: str,
    settings: ConsentSettings,
    response: Response,
    if_match: IfMatch = None,
) -> PersonDocument:
    """Note from when until when a person may be recognised, as ``facestream gallery consent`` does."""
    person = set_consent(parts, identity_id, settings, if_match)
    response.headers["ETag"] = etag(person)
    return person_document(person)


@router.delete(
    "/people/{identity_id}/consent",
    operation_id="clear_consent",
    responses=responses(HTTPStatus.NOT_FOUND, HTTPStatus.PRECONDITION_FAILED),
)
def clear_consent(
    _caller: Changer, parts: SharedParts, identity_id: str, response: Response, if_match: IfMatch = None
) -> PersonDocument:
    """Forget the consent of a person: nothing bounds the time."""
    person = set_consent(parts, identity_id, None, if_match)
    response.headers["ETag"] = etag(person)
    return person_document(person)


@router.patch(
    "/people/{identity_id}",
    operation_id="rename_person",
    responses=responses(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.PRECONDITION_FAILED),
)
def rename_person(
    _caller: Changer,
    parts: SharedParts,
    identity_id: str,
    change: PersonChange,
    response: Response,
    if_match: IfMatch = None,
) -> PersonDocument:
    """Give a person another name; the id stays."""
    person = rename(parts, identity_id, change.identity_name, if_match)
    response.headers["ETag"] = etag(person)
    return person_document(person)


@router.delete(
    "/people/{identity_id}",
    operation_id="remove_person",
    responses=responses(HTTPStatus.NOT_FOUND, HTTPStatus.PRECONDITION_FAILED),
)
def remove_one(_caller: Changer, parts: SharedParts, identity_id: str, if_match: IfMatch = None) -> Removed:
    """Remove a person with all samples, as ``facestream gallery remove`` does."""
    gone = remove(parts, identity_id, if_match)
    return Removed(identity_id=gone.identity_id, identity_name=gone.name, samples=len(gone.samples))


@router.get("/people/{identity_id}/samples", operation_id="list_samples", responses=responses(HTTPStatus.NOT_FOUND))
def list_samples(_caller: Reader, parts: SharedParts, identity_id: str, response: Response) -> SamplesPage:
    """Every enrolled face of a person: where it came from, and how good it is."""
    person = find(parts, identity_id)
    response.headers["ETag"] = etag(person)
    return SamplesPage(items=[sample_document(sample) for sample in person.samples])


@router.delete(
    "/people/{identity_id}/samples/{sample_id}",
    operation_id="remove_sample",
    status_code=HTTPStatus.NO_CONTENT,
    responses=responses(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.PRECONDITION_FAILED),
)
def remove_one_sample(
    _caller: Changer, parts: SharedParts, identity_id: str, sample_id: str, if_match: IfMatch = None
) -> None:
    """Remove one face of a person who has others."""
    remove_sample(parts, identity_id, sample_id, if_match)
