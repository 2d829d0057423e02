"""The cameras: how each is; added after a live test, changed, paused, removed; masks and zones drawn on a picture."""

from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any, Final
from urllib.parse import quote, urlsplit, urlunsplit

from fastapi import APIRouter, Form, Query
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import ValidationError

from worker.api import camera_hours, cameras
from worker.api.access import SharedParts
from worker.api.camera_documents import CameraChange, CameraDocument, CamerasPage, CheckDocument, NewCamera
from worker.api.parts import Parts
from worker.api.problems import Problem, unusable
from worker.console.pages import Manager, Visitor, gone_to, render
from worker.errors import HistoryError, SinkError
from worker.wire import parse_rfc3339

router = APIRouter(include_in_schema=False)

_SHOWN: Final = 60
_MOST_WORDS: Final = 4
Text = Annotated[str, Form(max_length=2000)]
_WORDS: Final = {
    "superseded": "the worker is too slow for all of them", "stale": "they came too late",
    "undecodable": "damaged pictures", "removed": "the camera was taken away",
    "blurred": "out of focus", "exposure": "too dark or too bright", "too_small": "too small", "pose": "turned away",
    "low_score": "hardly a face", "low_start_score": "hardly a face", "masked": "in a mask",
}  # fmt: skip


@router.get("/cameras")
def list_page(
    caller: Visitor,
    parts: SharedParts,
    q: Annotated[str, Query(max_length=64)] = "",
    wrong: bool = False,
    cursor: str | None = None,
    said: str = "",
) -> HTMLResponse:
    """All cameras, by id, or those of which something is wrong."""
    problem, found, everybody = "", CamerasPage(items=[], next_cursor=None, total=0), list[CameraDocument]()
    try:
        found, everybody = cameras.page(parts, q, cursor, _SHOWN, wrong_only=wrong)
    except SinkError as error:
        problem = str(error)
    return render(
        "cameras", caller, cameras=found.items, more=found.next_cursor, total=found.total, all=len(everybody),
        ill=sum(not one.is_well for one in everybody), q=q, wrong=wrong, said=said, why=_why,
        problem=problem,
    )  # fmt: skip


@router.get("/add-camera")
def add_page(caller: Manager) -> HTMLResponse:
    """Asks for name and address."""
    return _add_page(caller, {})


@router.post("/add-camera")
def add(
    caller: Manager,
    parts: SharedParts,
    camera_id: Text = "",
    source: Text = "",
    user: Text = "",
    password: Text = "",
    transport: Text = "tcp",
    do: Text = "add",
    anyway: Annotated[bool, Form()] = False,
) -> Response:
    """Looks through the camera; adds it if it works, or if that is wanted all the same."""
    typed = {"camera_id": camera_id, "source": source, "user": user, "transport": transport}
    try:
        given = NewCamera(
            camera_id=camera_id, source=_with_login(source, user, password), transport=transport
        )  # fmt: skip
        tried = cameras.checked(lambda: cameras.check(parts, given)) if do == "test" or not anyway else None
        if do == "test" or (tried is not None and not tried.works):
            return _add_page(caller, typed, tried)
        cameras.add(parts, given)
    except ValidationError as error:
        raise unusable(error) from None
    return gone_to(f"/cameras/{given.camera_id}", said="added")


@router.get("/cameras/{camera_id}")
def one_page(caller: Visitor, parts: SharedParts, camera_id: str, said: str = "") -> HTMLResponse:
    """One camera."""
    camera = cameras.find(parts, camera_id)
    now = {
        "source": "", "user": "", "transport": camera.transport, "rotate": camera.rotate, "flip": camera.flip,
        "threshold": "" if camera.threshold is None else f"{camera.threshold:g}",
    }  # fmt: skip
    return render(
        "camera", caller, camera=camera, etag=cameras.etag(camera), typed=now, said=said, why=_why,
        charts=_charts(parts, camera_id),
    )  # fmt: skip


@router.post("/cameras/{camera_id}")
def change(
    _caller: Manager,
    parts: SharedParts,
    camera_id: str,
    etag: Text,
    source: Text = "",
    user: Text = "",
    password: Text = "",
    transport: Text = "tcp",
    rotate: Annotated[int, Form()] = 0,
    flip: Text = "none",
    threshold: Text = "",
) -> RedirectResponse:
    """Changes its settings; an empty address leaves the address and its password as they are."""
    fields: dict[str, Any] = {"transport": transport, "rotate": rotate, "flip": flip}
    fields["threshold"] = threshold.replace(",", ".") or None
    if source:
        fields["source"] = _with_login(source, user, password)
    return _changed(parts, camera_id, etag, fields, "changed")


@router.get("/cameras/{camera_id}/areas")
def areas_page(caller: Manager, parts: SharedParts, camera_id: str, said: str = "") -> HTMLResponse:
    """Masks and zones on a picture."""
    camera = cameras.find(parts, camera_id)
    if not camera.defined:
        raise Problem(HTTPStatus.CONFLICT, f"camera {camera.camera_id} is in the configuration of its worker")
    return render(
        "areas", caller, camera=camera, etag=cameras.etag(camera), areas=write_areas(camera), said=said,
        tried=cameras.checked(lambda: cameras.look(parts, camera_id)),
    )  # fmt: skip


@router.post("/cameras/{camera_id}/areas")
def draw(_caller: Manager, parts: SharedParts, camera_id: str, etag: Text, areas: Text = "") -> RedirectResponse:
    """Other masks and zones."""
    try:
        masks, zones = read_areas(areas)
    except ValueError as error:
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from None
    return _changed(parts, camera_id, etag, {"masks": masks, "zones": zones}, "changed", "/areas")


@router.post("/cameras/{camera_id}/pause")
def pause(
    _caller: Manager, parts: SharedParts, camera_id: str, etag: Text, paused: Annotated[bool, Form()] = True
) -> RedirectResponse:
    """Pauses it, or reads it again."""
    return _changed(parts, camera_id, etag, {"paused": paused}, "paused" if paused else "resumed")


@router.post("/cameras/{camera_id}/remove")
def remove(_caller: Manager, parts: SharedParts, camera_id: str, etag: Text) -> RedirectResponse:
    """Forgets its definition."""
    cameras.remove(parts, camera_id, etag)
    return gone_to("/cameras", said="removed")


def _changed(
    parts: Parts, camera_id: str, etag: str, fields: Mapping[str, Any], said: str, page: str = ""
) -> RedirectResponse:
    try:
        given = CameraChange(**fields)
    except ValidationError as error:
        raise unusable(error) from None
    cameras.change(parts, camera_id, given, etag)
    return gone_to(f"/cameras/{camera_id}{page}", said=said)


def _charts(parts: Parts, camera_id: str) -> list[tuple[str, int, list[tuple[int, float, str]]]]:
    """Focus and light of the last days: what it is about, the faces in all of it that were of no use, in percent, and
    the hours (from left to right) with their share 0..1 and their time."""
    try:
        found = camera_hours.hours(parts, camera_id)
    except HistoryError:  # Health says so
        return []
    faces = sum(hour.faces for hour in found)
    last = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    return [
        (
            name,
            round(100 * sum(getattr(hour, field) for hour in found) / faces),
            [
                (
                    camera_hours.HOURS - 1 - int((last - parse_rfc3339(hour.hour)).total_seconds() // 3600),
                    getattr(hour, field) / max(hour.faces, 1),
                    hour.hour,
                )
                for hour in found
            ],
        )
        for name, field in (("faces out of focus", "blurred"), ("faces too dark or too bright", "exposure"))
        if faces
    ]


def _add_page(caller: Any, typed: Mapping[str, str], tried: CheckDocument | None = None) -> HTMLResponse:
    blank = {"camera_id": "", "source": "", "user": "", "transport": "tcp"}
    return render("camera_new", caller, typed=blank | dict(typed), tried=tried)


def _with_login(source: str, user: str, password: str) -> str:
    """The address with user and password, which are written into it as they have to be."""
    source = source.strip()
    if not user:
        return source
    try:
        parts = urlsplit(source)
    except ValueError:  # whoever looks at the address next says what is wrong with it
        return source
    login = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
    return urlunsplit(parts._replace(netloc=f"{login}@{parts.netloc.rpartition('@')[2]}"))


def write_areas(camera: CameraDocument) -> str:
    """One line for each area: ``mask: 0,0 0.5,0 0.5,1`` or ``zone NAME: ...``."""
    areas = [("mask", mask) for mask in camera.masks] + [(f"zone {name}", zone) for name, zone in camera.zones.items()]
    return "".join(f"{name}: {' '.join(f'{x:g},{y:g}' for x, y in corners)}\n" for name, corners in areas)


def read_areas(text: str) -> tuple[list[Any], dict[str, Any]]:
    """What :func:`write_areas` has written.

    Raises:
        ValueError: a line is no area.
    """
    masks, zones = list[Any](), dict[str, Any]()
    for number, line in enumerate(filter(None, map(str.strip, text.splitlines())), start=1):
        what, _, rest = line.partition(":")
        kind, _, name = what.strip().partition(" ")
        corners = [tuple(corner.split(",")) for corner in rest.split()]
        if kind == "mask" and not name:
            masks.append(corners)
        elif kind == "zone" and name.strip() and name.strip() not in zones:
            zones[name.strip()] = corners
        else:
            raise ValueError(
                f"line {number} is neither 'mask: x,y x,y x,y' nor 'zone NAME: x,y x,y x,y' with a new name"
            )
    return masks, zones


def _why(rates: Mapping[str, float]) -> list[tuple[str, float]]:
    """Why something was given up, the most frequent first."""
    told: dict[str, float] = {}
    for reason, rate in rates.items():
        word = _WORDS.get(reason, reason.replace("_", " "))
        told[word] = told.get(word, 0.0) + rate
    return sorted(told.items(), key=lambda each: -each[1])[:_MOST_WORDS]
