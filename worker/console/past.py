"""The past: a list, one sighting with its why, "not this person", and who is in a photo."""

import base64
import binascii
from datetime import UTC, datetime
from http import HTTPStatus
from io import BytesIO
from typing import Annotated, Any, Final

from fastapi import APIRouter, File, Form, Query, UploadFile
from fastapi.responses import HTMLResponse, RedirectResponse

from worker.api import fleet, search, sightings
from worker.api.access import Caller, SharedParts
from worker.api.problems import Problem
from worker.console.choices import meant, some_names
from worker.console.pages import Asker, Sender, Visitor, gone_to, render
from worker.console.texts import text
from worker.errors import SourceError
from worker.history.records import PastSighting, explain

router = APIRouter(include_in_schema=False)

_SHOWN: Final = 40
_FOUND: Final = 60
Words = Annotated[str, Query(max_length=200)]


@router.get("/sightings")
def list_page(
    caller: Visitor,
    parts: SharedParts,
    person: Words = "",
    unknown: Words = "",
    camera: Words = "",
    since: Words = "",
    until: Words = "",
    cursor: str | None = None,
) -> HTMLResponse:
    """Sightings by person, camera and time, newest first."""
    identity_id, problem = meant(parts.people(), person) if person else (None, "")
    found: list[PastSighting] = []
    more = None
    if not problem:
        found, more = sightings.page(
            parts, _SHOWN, cursor, identity_id=identity_id, unknown_id=unknown or None, camera_id=camera or None,
            since=_time(since), until=_time(until),
        )  # fmt: skip
    asked = {"person": person, "unknown": unknown, "camera": camera, "since": since, "until": until}
    return render(
        "sightings", caller, sightings=found, more=more, asked=asked, problem=problem, cameras=fleet.cameras(parts),
        names=some_names(parts),
    )  # fmt: skip


@router.get("/sightings/{sighting_id}")
def one_page(caller: Visitor, parts: SharedParts, sighting_id: str, said: str = "") -> HTMLResponse:
    """One sighting: the picture, the verdict and why."""
    sighting = sightings.look(parts, sighting_id)
    return render(
        "sighting", caller, sighting=sighting, why=explain(sighting), account=sighting.account, said=said,
        etag=sightings.etag(sighting), names=some_names(parts), near=sightings.nearest(parts, sighting),
        timeline=sightings.timeline(parts, sighting),
        has_pictures=parts.pictures() is not None,
    )  # fmt: skip


@router.post("/sightings/{sighting_id}/correct")
def correct(
    _caller: Sender,
    parts: SharedParts,
    sighting_id: str,
    etag: Annotated[str, Form()],
    name: Annotated[str, Form(max_length=200)] = "",
) -> RedirectResponse:
    """Not this person: somebody else, or somebody unknown."""
    identity_id = None
    if name.strip():
        found = [person.identity_id for person in parts.people() if name in {person.name, person.identity_id}]
        identity_id = found[0] if found else parts.gallery().person(name).identity_id
    sightings.correct(parts, sighting_id, identity_id, etag)
    return gone_to(f"/sightings/{sighting_id}", said="corrected")


@router.post("/sightings/{sighting_id}/undo")
def undo(_caller: Sender, parts: SharedParts, sighting_id: str, etag: Annotated[str, Form()]) -> RedirectResponse:
    """Takes the last correction back."""
    sightings.correct(parts, sighting_id, None, etag, undo=True)
    return gone_to(f"/sightings/{sighting_id}", said="undone")


@router.get("/find")
def find_page(caller: Visitor) -> HTMLResponse:
    """Asks for a photo."""
    return _find(caller)


@router.post("/find")
def find(
    caller: Asker,
    parts: SharedParts,
    photo: Annotated[UploadFile | None, File()] = None,
    face: Annotated[str, Form(max_length=900_000)] = "",
) -> HTMLResponse:
    """Where and when was this person seen; of several in a photo, which one is asked first. ``face`` is the one who was
    chosen then, as a picture: photos are not kept in between."""
    try:
        chosen = UploadFile(BytesIO(base64.b64decode(face, validate=True))) if face else photo
        if chosen is None:
            return _find(caller, problem=text("Choose a photo."))
        faces = search.faces_in(parts, chosen)
        if len(faces.faces) > 1 and not face:
            return _find(caller, choice=[search.face_picture(faces, number) for number in range(len(faces.faces))])
        # Somebody at the edge of the picture is not meant: who was chosen is in its middle.
        found, threshold = search.search(parts, faces, _FOUND, faces.middle if face else None)
    except binascii.Error:
        return _find(caller, problem=text("Choose a photo."))
    except SourceError as error:
        return _find(caller, problem=str(error))
    return _find(caller, found=found, threshold=threshold, face=face)


def _find(caller: Caller, **values: Any) -> HTMLResponse:
    shown: dict[str, Any] = {"found": None, "threshold": 0.0, "problem": "", "choice": [], "face": ""}
    return render("find", caller, **shown | values)


def _time(text: str) -> datetime | None:
    """A time as a field of a form gives it: without a zone, in UTC."""
    if not text:
        return None
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError:
        raise Problem(HTTPStatus.BAD_REQUEST, f"{text!r} is not a time") from None
