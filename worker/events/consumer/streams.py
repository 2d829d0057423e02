"""Work on streams: described as steps, so that one description serves blocking and asynchronous clients alike.

A generator yields what it wants done and is sent the outcome; a failure is thrown into it. The code that drives it does
nothing but input and output. Here are the steps, the streams that a consumer group reads, found by name or pattern, and
how far behind each group is.
"""

import re
import time
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar, cast

from redis.exceptions import ResponseError

from worker.redis.client import Client
from worker.redis.keys import CAMERA_PLACEHOLDER
from worker.wire import as_text


@dataclass(frozen=True, slots=True)
class Call:
    """A method of a client: ``Call("xack", (stream, group, entry_id))``. The outcome is its reply."""

    name: str
    arguments: tuple[Any, ...]
    options: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Transaction:
    """Calls that take effect together, all on keys of one slot. The outcome is the list of their replies."""

    calls: tuple[Call, ...]


@dataclass(frozen=True, slots=True)
class Find:
    """The keys of streams that match ``pattern``, wherever in a Cluster they lie. The outcome is their list."""

    pattern: str


@dataclass(frozen=True, slots=True)
class Split:
    """The outcome is ``keys`` in groups. One command may touch all keys of a group."""

    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait. The outcome is whether a stop was asked for, which also ends the wait."""

    seconds: float


Step: TypeAlias = Call | Transaction | Find | Split | Pause
_T = TypeVar("_T")
Steps: TypeAlias = Generator[Step, Any, _T]


def call(name: str, *arguments: Any, **options: Any) -> Call:
    """Short for a :class:`Call`."""
    return Call(name, arguments, options)


@dataclass(frozen=True, slots=True)
class Pending:
    """An entry that some consumer was handed and has not acknowledged."""

    entry_id: str
    consumer: str
    idle_ms: int
    deliveries: int


def pending_entries(reply: Any) -> list[Pending]:
    """The reply to XPENDING with a range; redis-py leaves it as it is within a transaction on a Cluster."""
    rows = [tuple(row.values()) if isinstance(row, dict) else row for row in reply or ()]
    return [
        Pending(as_text(entry_id), as_text(consumer), idle_ms, count) for entry_id, consumer, idle_ms, count in rows
    ]


FIND_COUNT: Final = 1000
"""How many keys Redis looks through at once in search of streams."""

_UNREAD_AT_MOST: Final = 1000
_GLOB: Final = re.compile(r"([*?\[\]\\])")


class StreamNames:
    """``streams`` are keys; one with ``{camera_id}`` in it stands for the streams of all cameras.

    Where a group does not exist, it is made: it begins at ``start`` (``0`` or ``$``), but at 0 in a stream that came
    into being later, and where the group was lost, for example because Redis was emptied. New streams of cameras are
    looked for every ``find_every_s``.
    """

    def __init__(self, streams: str | Sequence[str], group: str, start: str, find_every_s: float = 5.0) -> None:
        names = [streams] if isinstance(streams, str) else list(streams)
        self._fixed = [name for name in names if CAMERA_PLACEHOLDER not in name]
        self._patterns = [name for name in names if CAMERA_PLACEHOLDER in name]
        self._group = group
        self._start = start
        self._find_every_s = find_every_s
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
        self._find_due_s = time.monotonic() + self._find_every_s
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
    return sorted(key for key in map(as_text, keys) if of_camera.fullmatch(key))


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
            name = as_text(group["name"])
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
    last = as_text(group["last-delivered-id"])
    return len(cast("list[Any]", client.xrange(stream, min=f"({last}", count=_UNREAD_AT_MOST)))
