"""People who are not enrolled: listed, named, merged, split, ignored, forgotten."""

from collections.abc import Mapping, Sequence
from functools import partial
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Response

from worker.api.access import Changer, IdempotencyKey, Reader, SharedParts, once
from worker.api.paging import MOST, IfMatch, cursor_of, etag_of, place_of, require_match
from worker.api.parts import Parts
from worker.api.problems import Problem, not_found, responses
from worker.api.sight import sees
from worker.api.suggestions import risk_of, suggest
from worker.api.unknown_documents import (
    MergeRequest,
    NamedDocument,
    NameRequest,
    SplitDocument,
    SplitRequest,
    StepDocument,
    Suggestion,
    UndoneDocument,
    UnknownDetail,
    UnknownDocument,
    UnknownsPage,
)
from worker.errors import HistoryError, HistoryUnavailableError, SinkError
from worker.events.publisher import publish_at_once
from worker.history.documents import unknown_document
from worker.history.records import PastSighting, UnknownPerson
from worker.history.regrouping import Tell
from worker.names import person_name
from worker.recognition import unknowns
from worker.recognition.merging import take_back
from worker.recognition.unknowns import Named

router = APIRouter(tags=["unknowns"])


def find(parts: Parts, unknown_id: str) -> UnknownPerson:
    """The unknown person with this id.

    Raises:
        Problem: there is none.
    """
    with parts.history() as history:
        try:
            return history.unknown(unknown_id)
        except HistoryUnavailableError:
            raise
        except HistoryError:
            raise not_found(f"there is no unknown person {unknown_id}: named, forgotten or expired") from None


def etag(person: UnknownPerson) -> str:
    """Another one after each sighting and each change."""
    return etag_of(person.unknown_id, person.embedded_faces, person.last_seen, person.is_ignored)


def page(
    parts: Parts,
    cursor: str | None,
    limit: int,
    *,
    ignored: bool = False,
    seen: Mapping[str, Mapping[str, int]] | None = None,
) -> UnknownsPage:
    """Some of the unknown people, those first who were seen most often, then the latest; or of those who are
    ``ignored``. ``seen``: how often each camera saw each of them, if that is known already."""
    with parts.history() as history:
        people = parts.strangers.look(history)
        seen = history.seen_unknown() if seen is None else seen
    found = [
        ((-sum(seen.get(person.unknown_id, {}).values()), -person.last_seen.timestamp(), person.unknown_id), person)
        for person in people
        if person.is_ignored == ignored
    ]
    found.sort(key=lambda each: each[0])
    total = len(found)
    if cursor is not None:
        after = place_of(cursor, int, float, str)
        found = [each for each in found if each[0] > after]
    more = cursor_of(*found[limit - 1][0]) if len(found) > limit else None
    return UnknownsPage(
        items=[_document(person, seen) for _, person in found[:limit]], next_cursor=more, total=total
    )  # fmt: skip


def details(parts: Parts, documents: Sequence[UnknownDocument]) -> list[UnknownDetail]:
    """These unknown people, and whom they resemble."""
    with parts.history() as history:
        people = history.unknown_people({document.unknown_id for document in documents})
        denied = history.denied_people()
    risk, found = None, dict[str, list[Suggestion]]()
    if parts.has_gallery():
        gallery = parts.gallery()
        risk, found = risk_of(parts, gallery), suggest(parts, people, gallery, denied)
    return [
        UnknownDetail(**document.model_dump(), suggestions=found.get(document.unknown_id, []), risk=risk)
        for document in documents
    ]


def detail(parts: Parts, unknown_id: str) -> UnknownDetail:
    """One unknown person, and whom they resemble.

    Raises:
        Problem: there is none.
    """
    person = find(parts, unknown_id)
    with parts.history() as history:
        seen = history.seen_unknown([unknown_id])
    return details(parts, [_document(person, seen)])[0]


def _document(person: UnknownPerson, seen: Mapping[str, Mapping[str, int]]) -> UnknownDocument:
    cameras = seen.get(person.unknown_id, {})
    return UnknownDocument(**unknown_document(person, sum(cameras.values()), list(cameras)))


def faces_of(parts: Parts, unknown_ids: Sequence[str], most: int) -> dict[str, list[PastSighting]]:
    """The newest sightings of each of these people; the audit log tells of all in one line."""
    parts.looked_up("unknown show", *unknown_ids)
    with parts.history() as history:
        return {unknown_id: history.page(most, unknown_id=unknown_id) for unknown_id in unknown_ids}


def name(parts: Parts, unknown_id: str, given: str) -> tuple[Named, str]:
    """Gives an unknown person a name, as ``facestream unknown enroll``; returns the step, too.

    Raises:
        Problem: there is no such person, or the name is empty.
        GalleryError: the gallery cannot be written.
        SinkError: past sightings could not be corrected; it may be tried again.
    """
    given = person_name(given)
    if not given:
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "a person's name must not be empty")
    person = find(parts, unknown_id)
    parts.looked_up("unknown enroll", unknown_id)
    # Connects before anything is changed: without Redis, past sightings could not be corrected.
    client = parts.redis()
    gallery = parts.gallery_like(person.embedder.model_id, person.embedder.preprocessing_digest, _length(person))
    with parts.history() as history:
        named = unknowns.enroll_unknown(unknown_id, given, history.of_cameras(None), gallery)
        if publish_at_once(client, parts.config.redis, named.corrections):
            raise SinkError(f"{given} is enrolled, but Redis does not take the corrections: name them again")
        return named, unknowns.settle(unknown_id, named, history)


def merge(parts: Parts, unknown_id: str, other: str) -> str:
    """``other`` is the same person, and goes; returns the step, by which it can be undone.

    Raises:
        Problem: there is no such person.
        HistoryError: they cannot be merged.
        SinkError: past sightings could not be corrected, and nothing was changed.
    """
    for each in (unknown_id, other):
        find(parts, each)
    parts.looked_up("unknown merge", unknown_id, other)
    with parts.history() as history:
        return history.merge_unknowns(unknown_id, other, _correcting(parts))


def split(parts: Parts, unknown_id: str, sighting_ids: Sequence[str]) -> tuple[str, str]:
    """These sightings show somebody else; returns the id of that person and the step, by which it can be undone.

    Raises:
        Problem: there is no such person.
        HistoryError: a sighting is not theirs, nobody would be left, or none shows a face well enough.
        SinkError: past sightings could not be corrected, and nothing was changed.
    """
    find(parts, unknown_id)
    parts.looked_up("unknown split", unknown_id)
    with parts.history() as history:
        return history.split_unknown(unknown_id, sighting_ids, _correcting(parts))


def ignore(parts: Parts, unknown_id: str, *, ignored: bool = True) -> None:
    """Nobody wants to be asked about this person; or, not ``ignored``, somebody wants again.

    Raises:
        Problem: there is no such person.
    """
    find(parts, unknown_id)
    parts.looked_up("unknown ignore", unknown_id)
    with parts.history() as history:
        history.ignore_unknown(unknown_id, ignored=ignored)


def undo(parts: Parts, step: str) -> tuple[str, str]:
    """Takes a merge, a split or a name back; returns whose sightings went back to whom.

    Raises:
        HistoryError: there is no such step, or others came after it.
        GalleryError: the gallery cannot be written; it may be tried again.
        SinkError: past sightings could not be corrected, and nothing was changed.
    """
    parts.looked_up("unknown undo")
    with parts.history() as history:
        return take_back(step, history, parts.gallery, parts.redis, parts.config.redis)


def _correcting(parts: Parts) -> Tell:
    return partial(unknowns.publish_regrouping, parts.redis(), parts.config.redis)


def forget(parts: Parts, unknown_id: str, if_match: str | None = None) -> None:
    """Deletes what an unknown person is recognised by, as ``facestream unknown forget``.

    Raises:
        Problem: there is no such person.
    """
    find(parts, unknown_id)
    parts.looked_up("unknown forget", unknown_id)
    with parts.history() as history:
        history.drop_unknown(
            unknown_id, sightings_too=True, require=lambda person: require_match(if_match, etag(person))
        )  # fmt: skip


def _length(person: UnknownPerson) -> int:
    return 0 if person.template is None else len(person.template)


@router.get("/unknowns", operation_id="list_unknowns")
def list_unknowns(
    _caller: Reader,
    parts: SharedParts,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=MOST)] = 50,
    ignored: Annotated[bool, Query(description="those about whom nobody wants to be asked, and no others")] = False,
) -> UnknownsPage:
    """Who was seen and is not enrolled, those first who were seen most often."""
    return page(parts, cursor, limit, ignored=ignored)


@router.get("/unknowns/{unknown_id}", operation_id="show_unknown", responses=responses(HTTPStatus.NOT_FOUND))
def show_unknown(_caller: Reader, parts: SharedParts, unknown_id: str, response: Response) -> UnknownDetail:
    """One unknown person, whom they resemble, and what naming them risks; ``/sightings?unknown_id=`` has the past."""
    response.headers["ETag"] = etag(find(parts, unknown_id))
    parts.looked_up("unknown show", unknown_id)
    return detail(parts, unknown_id)


@router.post(
    "/unknowns/{unknown_id}/name",
    operation_id="name_unknown",
    response_model=NamedDocument,
    responses=responses(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.SERVICE_UNAVAILABLE),
)
def name_unknown(
    caller: Changer,
    parts: SharedParts,
    unknown_id: str,
    request: NameRequest,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Give an unknown person a name: they are enrolled, and their past sightings are published as corrected."""

    def make() -> tuple[HTTPStatus, str]:
        named, step = name(parts, unknown_id, request.identity_name)
        document = NamedDocument(
            unknown_id=unknown_id, identity_id=named.identity_id, identity_name=named.identity_name,
            samples=named.samples, corrected=sum(sees(event.camera_id) for event in named.corrections), step=step,
        )  # fmt: skip
        return HTTPStatus.OK, document.model_dump_json()

    return once(parts, caller, idempotency_key, f"name {unknown_id} {request.identity_name}", make)


@router.post(
    "/unknowns/{unknown_id}/merge",
    operation_id="merge_unknowns",
    response_model=StepDocument,
    responses=responses(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.SERVICE_UNAVAILABLE),
)
def merge_unknowns(
    caller: Changer,
    parts: SharedParts,
    unknown_id: str,
    request: MergeRequest,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Two ids are one person: this one gets all sightings of the other, which are published as corrected. It can be
    undone."""

    def make() -> tuple[HTTPStatus, str]:
        step = merge(parts, unknown_id, request.other)
        document = StepDocument(step=step, unknown_id=unknown_id, merged=request.other)
        return HTTPStatus.OK, document.model_dump_json()

    return once(parts, caller, idempotency_key, f"merge {unknown_id} {request.other}", make)


@router.post(
    "/unknowns/{unknown_id}/split",
    operation_id="split_unknown",
    response_model=SplitDocument,
    responses=responses(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT),
)
def split_unknown(
    caller: Changer,
    parts: SharedParts,
    unknown_id: str,
    request: SplitRequest,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """One id is two people: these sightings go to somebody new. It can be undone."""

    def make() -> tuple[HTTPStatus, str]:
        new_id, step = split(parts, unknown_id, request.sighting_ids)
        document = SplitDocument(
            step=step, unknown_id=unknown_id, new_unknown_id=new_id, sightings=len(set(request.sighting_ids))
        )
        return HTTPStatus.OK, document.model_dump_json()

    return once(parts, caller, idempotency_key, f"split {unknown_id} {sorted(request.sighting_ids)}", make)


@router.put(
    "/unknowns/{unknown_id}/ignored",
    operation_id="ignore_unknown",
    status_code=HTTPStatus.NO_CONTENT,
    responses=responses(HTTPStatus.NOT_FOUND),
)
def ignore_unknown(_caller: Changer, parts: SharedParts, unknown_id: str) -> None:
    """Do not ask about this person any more; ``GET /unknowns?ignored=true`` lists them."""
    ignore(parts, unknown_id)


@router.delete(
    "/unknowns/{unknown_id}/ignored",
    operation_id="heed_unknown",
    status_code=HTTPStatus.NO_CONTENT,
    responses=responses(HTTPStatus.NOT_FOUND),
)
def heed_unknown(_caller: Changer, parts: SharedParts, unknown_id: str) -> None:
    """Ask about this person again."""
    ignore(parts, unknown_id, ignored=False)


@router.delete(
    "/unknowns/{unknown_id}",
    operation_id="forget_unknown",
    status_code=HTTPStatus.NO_CONTENT,
    responses=responses(HTTPStatus.NOT_FOUND, HTTPStatus.PRECONDITION_FAILED),
)
def forget_unknown(_caller: Changer, parts: SharedParts, unknown_id: str, if_match: IfMatch = None) -> None:
    """Delete what an unknown person is recognised by; the next sighting is of somebody new. It cannot be undone."""
    forget(parts, unknown_id, if_match)


@router.post(
    "/steps/{step}/undo",
    operation_id="undo_step",
    responses=responses(HTTPStatus.CONFLICT, HTTPStatus.SERVICE_UNAVAILABLE),
)
def undo_step(_caller: Changer, parts: SharedParts, step: str) -> UndoneDocument:
    """Take a merge, a split or a name back; sightings that bore the name are published as corrected."""
    from_id, to_id = undo(parts, step)
    return UndoneDocument(step=step, from_=from_id, to=to_id)
