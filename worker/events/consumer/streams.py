"""The streams that a consumer group reads, found by name or pattern, and how far behind each group is."""

import re
import time
from collections.abc import Iterable, Sequence
from typing import Any, Final, cast

from redis.exceptions import ResponseError

from worker.events.consumer.steps import Find, Steps, call, text
from worker.redis.client import Client
from worker.redis.keys import CAMERA_PLACEHOLDER

FIND_COUNT: Final = 1000
"""How many keys Redis looks through at once in search of streams."""

_FIND_EVERY_S: Final = 5.0
_UNREAD_AT_MOST: Final = 1000
_GLOB: Final = re.compile(r"([*?\[\]\\])")


class StreamNames:
    """``streams`` are keys; one with ``{camera_id}`` in it stands for the streams of all cameras.

    Where a group does not exist, it is made: it begins at ``start`` (``0`` or ``$``), but at 0 in a stream that came
    into being later, and where the group was lost, as when Redis was emptied.
    """

    def __init__(self, streams: str | Sequence[str], group: str, start: str) -> None:
        names = [streams] if isinstance(streams, str) else list(streams)
        self._fixed = [name for name in names if CAMERA_PLACEHOLDER not in name]
        self._patterns = [name for name in names if CAMERA_PLACEHOLDER in name]
        self._group = group
        self._start = start
        self._find_due_s = float("-inf")
        self.ready: set[str] = set()

    @property
    def due_s(self) -> float:
        """When it is time for :meth:`refresh`, on the monotonic clock."""
        if not self._patterns:
            return float("-inf") if len(self.ready) < len(self._fixed) else float("inf")
        return self._find_due_s

    def refresh(self) -> Steps[list[str]]:
        """Look for streams and see to their groups. Returns those that became ready by this."""
        if time.monotonic() < self.due_s:
            return []
        found = list(self._fixed)
        for name in self._patterns:
            found += yield from find_streams(name)
        added = [stream for stream in dict.fromkeys(found) if stream not in self.ready]
        for stream in added:
            yield from self._create_group(stream)
            self.ready.add(stream)
        self._start = "0"
        self._find_due_s = time.monotonic() + _FIND_EVERY_S
        return added

    def forget(self) -> None:
        """Look at every stream again: one of them, or its group, is gone."""
        self.ready.clear()
        self._find_due_s = float("-inf")

    def _create_group(self, stream: str) -> Steps[None]:
        try:
            yield call("xgroup_create", stream, self._group, self._start, mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise


def find_streams(name: str) -> Steps[list[str]]:
    """The streams of all cameras, where ``name`` holds ``{camera_id}``; else ``name`` itself."""
    if CAMERA_PLACEHOLDER not in name:
        return [name]
    return _of_cameras(name, (yield Find(_pattern(name))))


def stream_keys(client: Client, name: str) -> list[str]:
    """The same for a blocking client.

    Raises:
        RedisError, OSError: Redis does not answer.
    """
    if CAMERA_PLACEHOLDER not in name:
        return [name]
    return _of_cameras(name, client.scan_iter(match=_pattern(name), count=FIND_COUNT, _type="stream"))


def _pattern(name: str) -> str:
    return "*".join(_GLOB.sub(r"\\\1", part) for part in name.split(CAMERA_PLACEHOLDER, 1))


def _of_cameras(name: str, keys: Iterable[Any]) -> list[str]:
    before, after = name.split(CAMERA_PLACEHOLDER, 1)
    of_camera = re.compile(f"{re.escape(before)}[A-Za-z0-9._-]+{re.escape(after)}")
    return sorted(key for key in map(text, keys) if of_camera.fullmatch(key))


def stream_lag(client: Client, stream: str) -> dict[str, int]:
    """How many entries of ``stream`` each consumer group has not acknowledged: unread ones and those in hand.

    With ``{camera_id}`` in ``stream``, it is the sum over the streams of all cameras. Before Redis 7 up to 1000 unread
    entries of a stream are counted; a stream that does not exist has no groups.

    Raises:
        RedisError, OSError: Redis does not answer, or a key holds no stream.
    """
    lags: dict[str, int] = {}
    for key in stream_keys(client, stream):
        for group in _groups(client, key):
            name = text(group["name"])
            lags[name] = lags.get(name, 0) + group["pending"] + _unread(client, key, group)
    return lags


def _groups(client: Client, stream: str) -> list[dict[str, Any]]:
    try:
        return client.xinfo_groups(stream)
    except ResponseError as error:
        if "no such key" in str(error):
            return []
        raise


def _unread(client: Client, stream: str, group: dict[str, Any]) -> int:
    if group.get("lag") is not None:
        return int(group["lag"])
    # An older Redis does not count, and a newer one cannot where entries were deleted one by one.
    last = text(group["last-delivered-id"])
    return len(cast("list[Any]", client.xrange(stream, min=f"({last}", count=_UNREAD_AT_MOST)))
