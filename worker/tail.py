"""Read a stream of events back, as a consumer would."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, Final, cast

import redis
from redis.backoff import FullJitterBackoff
from redis.exceptions import AuthenticationError, AuthorizationError, RedisError, ResponseError

from worker.errors import SinkError
from worker.events import decode
from worker.logs import get_logger
from worker.redaction import redact
from worker.types import Event

_COUNT: Final = 500
_REMEMBERED_EVENTS: Final = 65_536
_DOUBLINGS: Final = 10
_SOCKET_SHARE: Final = 0.5

_log = get_logger(__name__)
_backoff: Final = FullJitterBackoff(cap=5.0, base=0.1)


def _log_problem(entry_id: str, problem: str) -> None:
    _log.warning("stream entry skipped", entry_id=entry_id, reason=problem)


def read_events(
    client: redis.Redis,
    stream: str,
    *,
    start: str = "$",
    block_s: float = 1.0,
    follow: bool = True,
    deduplicate: bool = False,
    stop: threading.Event | None = None,
    on_problem: Callable[[str, str], None] = _log_problem,
) -> Iterator[tuple[str, Event]]:
    """The events of ``stream`` with the ids of their entries, oldest first.

    ``start`` is ``$`` (what is written from now on), ``0`` (everything) or the id of an entry (what follows it).
    With ``follow`` it waits for further ones, also while Redis is away, until ``stop`` is set (seen within
    ``block_s``); else it ends with the last entry. ``deduplicate`` leaves out an event whose ``event_id`` was among
    the last 65,536. An entry that cannot be read is told to ``on_problem(entry_id, problem)`` and skipped.

    Raises:
        SinkError: the key holds no stream, Redis refuses the reader, or (without ``follow``) is away.
    """
    stop = stop or threading.Event()
    seen = _Seen(_REMEMBERED_EVENTS)
    block_ms = _block_ms(client, block_s) if follow else None
    last_id = ""
    failures = 0
    while not stop.is_set():
        try:
            last_id = last_id or _resolve(client, stream, start)
            entries = _read(client, stream, last_id, block_ms)
        except (RedisError, OSError) as error:
            if not follow or _is_final(error):
                raise SinkError(f"stream '{stream}' cannot be read: {_reply(error)}") from None
            if failures == 0:
                _log.warning("Redis does not answer; reading goes on when it does", stream=stream, reason=_reply(error))
            failures += 1
            stop.wait(_backoff.compute(min(failures, _DOUBLINGS)))
            continue
        failures = 0
        for raw_id, fields in entries:
            last_id = raw_id.decode() if isinstance(raw_id, bytes) else raw_id
            try:
                event = decode(fields)
            except SinkError as error:
                on_problem(last_id, str(error))
                continue
            if not (deduplicate and seen(event.event_id)):
                yield last_id, event
        if not follow and not entries:
            return


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


def _resolve(client: redis.Redis, stream: str, start: str) -> str:
    """``$`` as the id that it means now, so that nothing written between two reads is missed."""
    if start != "$":
        return start
    if not client.exists(stream):
        return "0-0"
    last = client.xinfo_stream(stream)["last-generated-id"]
    return last.decode() if isinstance(last, bytes) else str(last)


def _read(client: redis.Redis, stream: str, last_id: str, block_ms: int | None) -> list[tuple[Any, Any]]:
    answer = client.xread({stream: last_id}, count=_COUNT, block=block_ms)
    if not answer:
        return []
    batches = next(iter(answer.values())) if isinstance(answer, dict) else answer[0][1]
    return cast(list[tuple[Any, Any]], batches)


def _block_ms(client: redis.Redis, block_s: float) -> int:
    """``block_s``, but below the time after which the client takes silence for a broken connection."""
    socket_timeout_s = client.connection_pool.connection_kwargs.get("socket_timeout")
    if socket_timeout_s:
        block_s = min(block_s, _SOCKET_SHARE * socket_timeout_s)
    return max(1, int(block_s * 1000))


def _is_final(error: Exception) -> bool:
    """Whether waiting cannot help: the reader is refused, or the key is no stream, or the id no id."""
    if isinstance(error, AuthenticationError | AuthorizationError):
        return True
    return isinstance(error, ResponseError) and not str(error).startswith(("MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN"))


def _reply(error: Exception) -> str:
    return " ".join(redact(str(error)).split()) or type(error).__name__
