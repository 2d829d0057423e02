"""Pictures of sightings, for pages: where none is kept, a drawn head."""

import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

from fastapi import APIRouter, Query, Response

from worker.api import pictures, sightings
from worker.api.access import SharedParts
from worker.api.problems import Problem
from worker.console.pages import HERE, Visitor
from worker.errors import GalleryError, SinkError
from worker.wire import parse_rfc3339

router = APIRouter(include_in_schema=False)

_HEAD: Final = (HERE / "static" / "head.svg").read_bytes()
_LARGEST_PX: Final = 800
_LONG_AGO: Final = timedelta(hours=1)
"""A sighting that began before that has got its best face."""
_GOES_ON_S: Final = 5
_DONE_S: Final = 300
_NAME: Final = re.compile(r"(?P<camera>[A-Za-z0-9][A-Za-z0-9._-]{0,63})_(?P<start>\d{4}-\d\d-\d\dT[0-9:.]{8,15}Z)_\d+")


@dataclass(frozen=True, slots=True)
class _Going:
    """A sighting that may still go on, as its id tells of it."""

    sighting_id: str
    camera_id: str
    started_at: datetime


@router.get("/faces/{sighting_id}")
def face(
    _caller: Visitor,
    parts: SharedParts,
    sighting_id: str,
    px: Annotated[int, Query(ge=16, le=_LARGEST_PX)] = 96,
) -> Response:
    """The best face of a sighting, also of one that is going on, as soon as the worker has written it."""
    jpeg, kept_s = None, _DONE_S
    with suppress(Problem, SinkError):
        seen = _going(sighting_id) or sightings.find(parts, sighting_id)
        if datetime.now(UTC) - seen.started_at < _LONG_AGO:
            kept_s = _GOES_ON_S
        jpeg = pictures.face_jpeg(parts, seen, px)
    return _shown(jpeg, kept_s)


@router.get("/samples/{identity_id}/{sample_id}")
def sample(
    _caller: Visitor,
    parts: SharedParts,
    identity_id: str,
    sample_id: str,
    px: Annotated[int, Query(ge=16, le=_LARGEST_PX)] = 96,
) -> Response:
    """An enrolled face."""
    jpeg = None
    with suppress(Problem, GalleryError):
        jpeg = pictures.sample_jpeg(parts, identity_id, sample_id, px)
    return _shown(jpeg)


@router.get("/scenes/{sighting_id}")
def scene(_caller: Visitor, parts: SharedParts, sighting_id: str) -> Response:
    """The frame from which the best face of a sighting is; to be enlarged."""
    jpeg = None
    with suppress(SinkError):
        jpeg = pictures.scene_jpeg(parts, sightings.look(parts, sighting_id), pictures.LARGEST_PX)
    return _shown(jpeg)


def _shown(jpeg: bytes | None, kept_s: int = _DONE_S) -> Response:
    """For so long the browser shows it without asking again."""
    content, kind, kept_s = (_HEAD, "svg+xml", _GOES_ON_S) if jpeg is None else (jpeg, "jpeg", kept_s)
    return Response(content, media_type=f"image/{kind}", headers={"Cache-Control": f"private, max-age={kept_s}"})


def _going(sighting_id: str) -> _Going | None:
    if (found := _NAME.fullmatch(sighting_id)) is None:
        return None
    with suppress(ValueError):
        return _Going(sighting_id, found["camera"], parse_rfc3339(found["start"]))
    return None
