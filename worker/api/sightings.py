"""The past: who was seen when and where, and why; what was wrong is corrected; who is in a photo is looked for."""

from collections.abc import Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Final

from fastapi import APIRouter, Query, Response

from worker.api import people
from worker.api.access import Changer, Reader, SharedParts
from worker.api.paging import MOST, IfMatch, cursor_of, etag_of, place_of, require_match
from worker.api.parts import Parts
from worker.api.problems import Problem, not_found, responses
from worker.api.sighting_documents import (
    CorrectionDocument,
    CorrectionRequest,
    Explanation,
    NearDocument,
    NearPage,
    SightingDocument,
    SightingsPage,
    Timeline,
    TimelineEntry,
)
from worker.errors import SinkError
from worker.events.publisher import publish_at_once
from worker.history.documents import sighting_document
from worker.history.records import PastSighting, explain
from worker.recognition import corrections
from worker.recognition.corrections import Correction
from worker.recognition.unknowns import made_with
from worker.types import Embeddings
from worker.wire import parse_rfc3339, rfc3339

router = APIRouter(tags=["sightings"])

_NEAREST: Final = 4
_OF_CORRECTIONS: Final = responses(
    HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.PRECONDITION_FAILED, HTTPStatus.SERVICE_UNAVAILABLE
)

SinceQuery = Annotated[str | None, Query(max_length=40, description="RFC 3339, such as 2026-03-01T08:30:00Z")]


def find(parts: Parts, sighting_id: str) -> PastSighting:
    """The sighting with this id.

    Raises:
        Problem: there is none.
    """
    with parts.history() as history:
        found = history.sightings(sighting_id=sighting_id)
    if not found:
        raise not_found(f"there is no past sighting {sighting_id}: it still goes on, or has expired")
    return found[0]


def look(parts: Parts, sighting_id: str) -> PastSighting:
    """The same for somebody who looks at it: the audit log tells.

    Raises:
        Problem: there is none.
    """
    parts.looked_up("explain", sighting_id)
    return find(parts, sighting_id)


def etag(sighting: PastSighting) -> str:
    """Another one after each correction."""
    return etag_of(sighting.sighting_id, sighting.corrections, sighting.identity_id, sighting.unknown_id)


def page(
    parts: Parts,
    limit: int,
    cursor: str | None = None,
    *,
    identity_id: str | None = None,
    unknown_id: str | None = None,
    camera_id: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> tuple[list[PastSighting], str | None]:
    """The newest of these sightings, and what leads to further ones.

    Raises:
        Problem: the cursor is none.
        HistoryError: the history cannot be read.
    """
    before = None
    if cursor is not None:
        started_s, sighting_id = place_of(cursor, float, str)
        before = started_s, sighting_id
    with parts.history() as history:
        found = history.page(
            limit + 1, before=before, since=since, until=until, camera_id=camera_id, identity_id=identity_id,
            unknown_id=unknown_id,
        )  # fmt: skip
    if identity_id or unknown_id:
        parts.looked_up("explain", identity_id, unknown_id)
    more = None
    if len(found) > limit:
        last = found[limit - 1]
        more = cursor_of(last.started_at.timestamp(), last.sighting_id)
    return found[:limit], more


def correct(
    parts: Parts, sighting_id: str, identity_id: str | None, if_match: str | None = None, *, undo: bool = False
) -> Correction:
    """Says that a sighting shows somebody else: ``identity_id``, or somebody unknown; as ``facestream correct``.

    Raises:
        Problem: there is no such sighting or person, or it was corrected meanwhile.
        HistoryError: there is nothing to correct or to undo.
        SinkError: the event could not be delivered, and nothing was changed.
    """
    sighting, gallery = find(parts, sighting_id), parts.gallery()
    require_match(if_match, etag(sighting))
    if identity_id is not None and not gallery.knows(identity_id):
        raise not_found(f"nobody with the id {identity_id} is enrolled")
    client = parts.redis()
    parts.looked_up("correct", sighting_id, identity_id)
    with parts.history() as history:
        if undo:
            made = corrections.undo(sighting, gallery)
        else:
            made = corrections.correct(sighting, identity_id, history.of_cameras(None), gallery, parts.config)
        if publish_at_once(client, parts.config.redis, [made.event]):
            raise SinkError("Redis does not take the correction, and nothing was changed; try again")
        corrections.settle(made, history, parts.config)
    return made


def time_of(text: str | None, name: str) -> datetime | None:
    """A time of the query.

    Raises:
        Problem: it is none.
    """
    if text is None:
        return None
    try:
        return parse_rfc3339(text).astimezone(UTC)
    except ValueError:
        raise Problem(
            HTTPStatus.BAD_REQUEST, f"{name} is not a time: write 2026-03-01T08:30:00Z"
        ) from None  # fmt: skip


def nearest(parts: Parts, sighting: PastSighting) -> list[NearDocument]:
    """The people whose enrolled faces are the most similar to a sighting's, today; nobody where they cannot be
    compared."""
    if sighting.template is None or not parts.has_gallery():
        return []
    gallery, found = parts.gallery(), list[NearDocument]()
    if sighting.embedder != made_with(gallery):
        return []
    probe = Embeddings(sighting.template[None], gallery.model_id)
    while len(found) < min(_NEAREST, len(gallery)):
        (candidate,) = gallery.search(probe, {each.identity_id for each in found})
        if not candidate.identity_id:
            break
        vectors, samples = gallery.vectors(candidate.identity_id)
        likeness = vectors @ sighting.template
        best = int(likeness.argmax())
        found.append(
            NearDocument(
                identity_id=candidate.identity_id, identity_name=candidate.identity_name,
                similarity=round(float(likeness[best]), 4), sample_id=samples[best].sample_id,
                photo=people.origin(parts, samples[best].photo), samples=len(samples),
            )
        )  # fmt: skip
    return found


def timeline(parts: Parts, sighting: PastSighting) -> list[TimelineEntry]:
    """What is kept of its verdicts: when it began, how it ended, and what people said since."""
    names = {person.identity_id: person.name for person in parts.people()}
    told, account = sighting.event, sighting.account
    blank = TimelineEntry(
        at=rfc3339(sighting.started_at), what="started", identity_id="", identity_name="", unknown_id="",
        similarity=None, threshold=None, not_name="",
    )  # fmt: skip
    by_camera = str(told.get("identity_id", ""))
    ended = {
        "at": rfc3339(sighting.ended_at), "what": "ended", "identity_id": by_camera,
        "identity_name": told.get("identity_name", ""), "unknown_id": told.get("unknown_id", ""),
        "similarity": account.similarity, "threshold": account.threshold,
    }  # fmt: skip
    made = [blank, blank.model_copy(update=ended)]
    for denial in sighting.denials:
        said = {
            "at": rfc3339(denial.at), "what": "denied", "identity_id": denial.given_id,
            "identity_name": names.get(denial.given_id, ""), "unknown_id": denial.unknown_id,
            "not_name": denial.identity_name,
        }  # fmt: skip
        made.append(blank.model_copy(update=said))
    if sighting.identity_id and sighting.identity_id != made[-1].identity_id:
        now = {"at": None, "what": "named", "identity_id": sighting.identity_id}
        made.append(blank.model_copy(update=now | {"identity_name": sighting.identity_name}))
    return made


def items_of(found: Sequence[PastSighting]) -> list[SightingDocument]:
    """As the API shows them."""
    return [SightingDocument(**sighting_document(sighting)) for sighting in found]


@router.get("/sightings", operation_id="list_sightings", responses=responses(HTTPStatus.BAD_REQUEST))
def list_sightings(
    _caller: Reader,
    parts: SharedParts,
    identity_id: Annotated[str | None, Query(max_length=200, description="of this person alone")] = None,
    unknown_id: Annotated[str | None, Query(max_length=200, description="of this unknown person alone")] = None,
    camera_id: Annotated[str | None, Query(max_length=200, description="of this camera alone")] = None,
    since: SinceQuery = None,
    until: SinceQuery = None,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=MOST)] = 50,
) -> SightingsPage:
    """The sightings that went on between two times, newest first."""
    found, more = page(
        parts, limit, cursor, identity_id=identity_id, unknown_id=unknown_id, camera_id=camera_id,
        since=time_of(since, "since"), until=time_of(until, "until"),
    )  # fmt: skip
    return SightingsPage(items=items_of(found), next_cursor=more)


@router.get("/sightings/{sighting_id}", operation_id="show_sighting", responses=responses(HTTPStatus.NOT_FOUND))
def show_sighting(_caller: Reader, parts: SharedParts, sighting_id: str, response: Response) -> SightingDocument:
    """One sighting."""
    sighting = look(parts, sighting_id)
    response.headers["ETag"] = etag(sighting)
    return items_of([sighting])[0]


@router.get(
    "/sightings/{sighting_id}/explanation", operation_id="explain_sighting", responses=responses(HTTPStatus.NOT_FOUND)
)
def explain_sighting(_caller: Reader, parts: SharedParts, sighting_id: str) -> Explanation:
    """What happened to the faces of a sighting, and why it ended as it did."""
    sighting = look(parts, sighting_id)
    return Explanation(**{"sighting_id": sighting_id, "text": explain(sighting)} | sighting.account.to_json())


@router.get("/sightings/{sighting_id}/nearest", operation_id="list_nearest", responses=responses(HTTPStatus.NOT_FOUND))
def list_nearest(_caller: Reader, parts: SharedParts, sighting_id: str) -> NearPage:
    """The enrolled people whom a sighting resembles most, with the face of each that is the most similar."""
    return NearPage(items=nearest(parts, look(parts, sighting_id)))


@router.get(
    "/sightings/{sighting_id}/timeline", operation_id="show_timeline", responses=responses(HTTPStatus.NOT_FOUND)
)
def show_timeline(_caller: Reader, parts: SharedParts, sighting_id: str) -> Timeline:
    """What is kept of the verdicts of a sighting, oldest first."""
    return Timeline(items=timeline(parts, look(parts, sighting_id)))


@router.post(
    "/sightings/{sighting_id}/correction",
    operation_id="correct_sighting",
    responses=_OF_CORRECTIONS,
)
def correct_sighting(
    _caller: Changer, parts: SharedParts, sighting_id: str, correction: CorrectionRequest, if_match: IfMatch = None
) -> CorrectionDocument:
    """Say whom a sighting shows, if not the person whom it names; that face is not named so again."""
    return _corrected(correct(parts, sighting_id, correction.identity_id, if_match))


@router.delete(
    "/sightings/{sighting_id}/correction",
    operation_id="undo_correction",
    responses=_OF_CORRECTIONS,
)
def undo_correction(
    _caller: Changer, parts: SharedParts, sighting_id: str, if_match: IfMatch = None
) -> CorrectionDocument:
    """Take the last correction of a sighting back."""
    return _corrected(correct(parts, sighting_id, None, if_match, undo=True))


def _corrected(made: Correction) -> CorrectionDocument:
    sighting, event = made.sighting, made.event
    return CorrectionDocument(
        sighting_id=sighting.sighting_id, event_id=event.event_id, identity_id=event.identity_id,
        identity_name=event.identity_name, unknown_id=event.unknown_id, previous_id=sighting.identity_id,
        previous_name=sighting.identity_name, counter_example=not made.undoes and not made.caveat, caveat=made.caveat,
    )  # fmt: skip
