"""Read a stream of events back, as a consumer would."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, Final, cast

from worker.errors import SinkError
from worker.events.codec import decode
from worker.events.consumer.streams import stream_keys
from worker.logs import get_logger
from worker.redis.client import REDIS_ERRORS, Client, one_transaction_each, socket_timeout_s
from worker.redis.errors import is_final, pause_s, reply_of
from worker.redis.keys import CAMERA_PLACEHOLDER
from worker.types import Event
from worker.wire import as_text

_COUNT: Final = 500
_SOCKET_SHARE: Final = 0.5
_SWEEP_S: Final = 0.2

_log = get_logger(__name__)


def _log_problem(entry_id: str, problem: str) -> None:
    _log.warning("stream entry skipped", entry_id=entry_id, reason=problem)


def read_events(
    client: Client,
    stream: str,
    *,
    start: str = "$",
    block_s: float = 1.0,
    follow: bool = True,
    deduplicate: bool = False,
    stop: threading.Event | None = None,
    on_problem: Callable[[str, str], None] = _log_problem,
    remembered: int = 65_536,
    find_every_s: float = 5.0,
) -> Iterator[tuple[str, Event]]:
    """The events of ``stream`` with the ids of their entries, oldest first.

    ``start`` is ``$`` (what is written from now on), ``0`` (everything) or the id of an entry (what follows it).
    With ``follow`` it waits for further ones, also while Redis is away, until ``stop`` is set (seen within
    ``block_s``); else it ends with the last entry. ``deduplicate`` leaves out an event whose ``event_id`` was among
    the last ``remembered`` ones. An entry that cannot be read is told to ``on_problem(entry_id, problem)`` and skipped.

    A ``stream`` with ``{camera_id}`` in it stands for the streams of all cameras, also of those that come later, which
    are looked for every ``find_every_s``; then events are in order for each camera.

    Raises:
        SinkError: the key holds no stream, Redis refuses the reader, or (without ``follow``) is away.
    """
    stop = stop or threading.Event()
    seen = _Seen(remembered)
    reading = _Reading(client, stream, start, stop, block_s if follow else None, find_every_s)
    failures = 0
    while not stop.is_set():
        try:
            entries = reading.read()
        except REDIS_ERRORS as error:
            if not follow or is_final(error):
                raise SinkError(f"stream '{stream}' cannot be read: {reply_of(error)}") from None
            if failures == 0:
                reason = reply_of(error)
                _log.warning("Redis does not answer; reading goes on when it does", stream=stream, reason=reason)
            failures += 1
            stop.wait(pause_s(failures))
            continue
        failures = 0
        for key, raw_id, fields in entries:
            entry_id = reading.note(key, raw_id)
            try:
                event = decode(fields)
            except SinkError as error:
                on_problem(entry_id, str(error))
                continue
            if not (deduplicate and seen(event.event_id)):
                yield entry_id, event
        if not follow and not entries:
            return


class _Reading:
    """How far each of the streams was read. It does not wait for entries if ``block_s`` is None."""

    def __init__(
        self,
        client: Client,
        stream: str,
        start: str,
        stop: threading.Event,
        block_s: float | None,
        find_every_s: float,
    ) -> None:
        self._find_every_s = find_every_s
        self._client = client
        self._stream = stream
        self._start = start
        self._stop = stop
        timeout_s = socket_timeout_s(client)
        if block_s is not None and timeout_s:
            # Below the time after which the client takes silence for a broken connection.
            block_s = min(block_s, _SOCKET_SHARE * timeout_s)
        self._block_s = block_s
        self._last_ids: dict[str, str] = {}
        self._find_due_s = float("-inf")

    def read(self) -> list[tuple[str, bytes | str, Any]]:
        """Further entries: stream, id, fields."""
        self._find()
        groups = one_transaction_each(self._client, self._last_ids)
        block_ms = max(1, int(self._block_s * 1000)) if self._block_s and len(groups) == 1 else None
        entries: list[tuple[str, bytes | str, Any]] = []
        for group in groups:
            last_ids = {key: self._last_ids[key] for key in group}
            answer = self._client.xread(cast("dict[Any, Any]", last_ids), count=_COUNT, block=block_ms)
            for key, read in cast("list[tuple[bytes | str, list[Any]]]", answer or []):
                entries += [(as_text(key), entry_id, fields) for entry_id, fields in read]
        if not entries and len(groups) != 1 and self._block_s:
            # One command cannot wait for the streams of several slots.
            self._stop.wait(min(_SWEEP_S, self._block_s))
        return entries

    def note(self, key: str, entry_id: bytes | str) -> str:
        """This entry was read."""
        self._last_ids[key] = as_text(entry_id)
        return self._last_ids[key]

    def _find(self) -> None:
        if time.monotonic() < self._find_due_s:
            return
        for key in stream_keys(self._client, self._stream):
            if key not in self._last_ids:
                self._last_ids[key] = _resolve(self._client, key, self._start)
        if self._start == "$":
            # What comes into being later is new from its first entry.
            self._start = "0-0"
        sharded = CAMERA_PLACEHOLDER in self._stream
        self._find_due_s = time.monotonic() + self._find_every_s if sharded else float("inf")


class _Seen:
    """Remembers the last ``limit`` names; says whether a name is among them."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._names: OrderedDict[str, None] = OrderedDict()

    def __call__(self, name: str) -> bool:
        if name in self._names:
            return True
        self._names[name] = None
        if len(self._names) > self._limit:
            self._names.popitem(last=False)
        return False


def _resolve(client: Client, stream: str, start: str) -> str:
    """``$`` as the id that it means now, so that nothing written between two reads is missed."""
    if start != "$":
        return start
    if not client.exists(stream):
        return "0-0"
    return as_text(client.xinfo_stream(stream)["last-generated-id"])
