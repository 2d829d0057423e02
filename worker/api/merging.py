"""Two people of the gallery who are one: what becomes of them, and the merge. Undo: ``POST /steps/{step}/undo``."""

from http import HTTPStatus
from typing import Annotated, Final

from fastapi import APIRouter, Query, Response

from worker.api import people
from worker.api.access import Changer, IdempotencyKey, SharedParts, once
from worker.api.paging import IfMatch, etag_of, require_match
from worker.api.parts import Parts
from worker.api.person_documents import PeopleMerged, PeopleMergePlan, person_document
from worker.api.problems import Problem, responses
from worker.api.sight import sees
from worker.api.suggestions import risk_of
from worker.api.unknown_documents import MergeRequest
from worker.gallery.contents import Contents, Person
from worker.gallery.merging import merged
from worker.recognition import merging
from worker.recognition.merging import Merged

router = APIRouter(tags=["people"])

_DAY_S: Final = 86_400.0


def plan(parts: Parts, identity_id: str, other: str) -> tuple[PeopleMergePlan, str]:
    """What a merge of these two would change, how sure it is that they are one person, and the ETag of both: another
    one after each change of one of the two.

    Raises:
        Problem: there is no such person, or both are the same.
        GalleryError: they cannot be merged.
    """
    one, two = _both(parts, identity_id, other)
    parts.looked_up("gallery merge", identity_id, other)
    gallery = parts.gallery()
    impostors = parts.impostors(gallery)
    after, merger = merged(gallery.contents, identity_id, other)
    now = after.person(identity_id, after.samples_of(identity_id))
    similarity = float((gallery.vectors(identity_id)[0] @ gallery.vectors(other)[0].T).max())
    with parts.history() as history:
        sightings = history.count_of(other)
    told = PeopleMergePlan(
        identity_id=identity_id, identity_name=one.name, other_id=other, other_name=two.name,
        samples=len(now.samples), moved=len(two.samples), groups=list(now.groups),
        joined=[name for name in now.groups if name in merger.joined],
        threshold=after.membership(identity_id).threshold, consent=person_document(now).consent,
        consent_changes=now.consent != one.consent, sightings=sightings, similarity=round(similarity, 4),
        stranger_rate=impostors.rate_at(similarity) if impostors else None, risk=risk_of(parts, gallery),
    )  # fmt: skip
    return told, _etag(one, two)


def merge(parts: Parts, identity_id: str, other: str, if_match: str | None = None) -> Merged:
    """Makes two people one; past sightings are published as corrected, at whichever camera they were.

    Raises:
        Problem: there is no such person, both are the same, or one was changed meanwhile.
        GalleryError: they cannot be merged, or the gallery cannot be written.
        SinkError: past sightings could not be corrected, and nothing was changed.
    """
    _both(parts, identity_id, other)

    def require(contents: Contents) -> None:
        require_match(if_match, _etag(*(people.person_in(contents, each) for each in (identity_id, other))))

    # Connects before anything is changed.
    client = parts.redis()
    parts.looked_up("gallery merge", identity_id, other)
    with parts.history() as history:
        return merging.merge(
            identity_id, other, history.of_cameras(None), parts.gallery(), client, parts.config.redis,
            remember_s=parts.config.unknowns.remember_days * _DAY_S, require=require,
        )  # fmt: skip


def _both(parts: Parts, identity_id: str, other: str) -> tuple[Person, Person]:
    one, two = people.find(parts, identity_id), people.find(parts, other)
    if identity_id == other:
        raise Problem(HTTPStatus.CONFLICT, f"{one.name} is one person already: choose somebody else")
    return one, two


def _etag(*both: Person) -> str:
    return etag_of(*map(people.etag, both))


@router.get(
    "/people/{identity_id}/merge",
    operation_id="plan_merge_of_people",
    responses=responses(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT),
)
def plan_merge(
    _caller: Changer,
    parts: SharedParts,
    identity_id: str,
    other: Annotated[str, Query(min_length=1, max_length=300, description="id of the other person")],
    response: Response,
) -> PeopleMergePlan:
    """What changes if ``other`` is the same person, and how sure that is. Its ETag is of both people."""
    told, response.headers["ETag"] = plan(parts, identity_id, other)
    return told


@router.post(
    "/people/{identity_id}/merge",
    operation_id="merge_people",
    response_model=PeopleMerged,
    responses=responses(
        HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.PRECONDITION_FAILED, HTTPStatus.SERVICE_UNAVAILABLE
    ),
)
def merge_people(
    caller: Changer,
    parts: SharedParts,
    identity_id: str,
    request: MergeRequest,
    if_match: IfMatch = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Two entries are one person: this one keeps id and name, and gets samples, groups and past sightings of the other.
    It can be undone. The ETag is that of the plan."""

    def make() -> tuple[HTTPStatus, str]:
        done = merge(parts, identity_id, request.other, if_match)
        person = people.find(parts, identity_id)
        document = PeopleMerged(
            step=done.step, identity_id=identity_id, identity_name=person.name, merged=request.other,
            merged_name=done.merger.other_name, samples=len(person.samples),
            corrected=sum(sees(event.camera_id) for event in done.corrections),
        )  # fmt: skip
        return HTTPStatus.OK, document.model_dump_json()

    return once(parts, caller, idempotency_key, f"merge people {identity_id} {request.other}", make)
