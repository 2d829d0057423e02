"""Cursors, which say where a page of a list ends, and ETags, which say whether a thing has changed."""

import base64
import binascii
import hashlib
import json
from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import Header

from worker.api.problems import Problem

MOST: Final = 200
"""The longest page."""
IfMatch = Annotated[
    str | None, Header(description="the ETag that was seen: the change is refused if it is another one now")
]


def cursor_of(*place: float | str) -> str:
    """A text that leads to what comes after ``place``."""
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")


def place_of(cursor: str, *kinds: type) -> tuple[Any, ...]:
    """What :func:`cursor_of` was given: values of these ``kinds``.

    Raises:
        Problem: it is no cursor of such a list.
    """
    try:
        place = json.loads(base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        place = None
    if (
        not isinstance(place, list)
        or len(place) != len(kinds)
        or not all(isinstance(value, kind) for value, kind in zip(place, kinds, strict=True))
    ):
        raise Problem(HTTPStatus.BAD_REQUEST, "cursor is not one that a page before has given: leave it out")
    return tuple(place)


def etag_of(*parts: object) -> str:
    """An ETag of something that these ``parts`` are all of."""
    return f'"{hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:24]}"'


def require_match(if_match: str | None, etag: str) -> None:
    """Does nothing if the caller wants to change what is there now.

    Raises:
        Problem: it has been changed since the caller looked.
    """
    if if_match is None or if_match.strip() == "*":
        return
    if etag not in {given.strip() for given in if_match.split(",")}:
        raise Problem(HTTPStatus.PRECONDITION_FAILED, "it was changed meanwhile: look at it again, and decide anew")
