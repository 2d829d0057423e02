"""Which cameras somebody may see. What other cameras have seen is left out of all that :class:`Parts` gives them, as if
it did not exist."""

import json
from collections.abc import Iterable
from contextvars import ContextVar

Cameras = tuple[str, ...] | None
"""Ids of the cameras that somebody may see, in the order of the alphabet; None: all."""

_cameras: ContextVar[Cameras] = ContextVar("cameras", default=None)


def look_through(cameras: Cameras) -> None:
    """What this task or thread does from now on, and what it begins, is done for somebody who sees these alone."""
    _cameras.set(cameras)


def in_sight() -> Cameras:
    """The cameras that may be seen here and now."""
    return _cameras.get()


def sees(camera_id: str) -> bool:
    """Whether this camera may be seen here and now."""
    cameras = _cameras.get()
    return cameras is None or camera_id in cameras


def both(first: Cameras, second: Cameras) -> Cameras:
    """The cameras that both see."""
    if first is None or second is None:
        return second if first is None else first
    return tuple(camera_id for camera_id in first if camera_id in second)


def write_cameras(cameras: Cameras) -> str:
    """As a column of the database has them."""
    return "" if cameras is None else json.dumps(cameras)


def read_cameras(text: str) -> Cameras:
    """What :func:`write_cameras` has written."""
    return tuple(json.loads(text)) if text else None


def in_order(cameras: Iterable[str] | None) -> Cameras:
    """Each once."""
    return None if cameras is None else tuple(sorted(set(cameras)))
