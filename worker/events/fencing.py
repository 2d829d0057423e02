"""Appending to a stream so that a worker that has lost a camera cannot speak for it any more.

Beside each stream lies its fence: the highest epoch of each camera that was seen. An epoch is also the time (Redis
clock, ms) at which it began. An event of an older epoch is appended if it was caused before the newer epoch began;
otherwise it is refused. The worker measures the age of the event, with a clock that nobody sets; Redis tells the time.
If the clock of Redis was set back, an epoch lies ahead of it: then the time at which the fence was raised
(``CAMERA@``) counts if it is the earlier one.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import redis
from redis.exceptions import ResponseError

from worker.config import RedisConfig
from worker.events.spool import Entry
from worker.redis.client import REDIS_ERRORS, Client, is_cluster
from worker.redis.keys import beside, event_stream
from worker.redis.script import lua

_APPEND: Final = lua("worker.events", "append")

_RAISE: Final = lua("worker.events", "raise")


@dataclass(frozen=True, slots=True)
class Fenced:
    """One event to be appended; ``age_s``: how long ago it was caused."""

    camera_id: str
    epoch: int
    age_s: float
    fields: Mapping[str, str]


def append_fenced(
    client: redis.Redis, stream_key: str, entries: Sequence[Fenced], *, max_events: int
) -> list[str | None]:
    """Appends ``entries`` in order, in one step. Returns the id of each; None: its epoch is over, it was refused.

    Raises:
        RedisError: none, or only the first of them, were appended.
    """
    arguments: list[str | int] = [max_events]
    for entry in entries:
        arguments += [entry.camera_id, entry.epoch, max(0, int(entry.age_s * 1000)), 2 * len(entry.fields)]
        for name, value in entry.fields.items():
            arguments += [name, value]
    ids = cast("list[bytes | str]", _APPEND(client, [stream_key, beside(stream_key, "fence")], arguments))
    return [(entry_id.decode() if isinstance(entry_id, bytes) else entry_id) or None for entry_id in ids]


def raise_fence(client: redis.Redis, stream_key: str, camera_id: str, epoch: int) -> None:
    """From now on, events of the camera that an older epoch causes are refused. Never lowers the fence.

    Raises:
        RedisError: it is not known to be raised.
    """
    _RAISE(client, [beside(stream_key, "fence")], [camera_id, epoch])


STALE: Final = ""
"""In place of an entry's id: the epoch of its event is over."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of one entry. ``result`` is its id in the stream, :data:`STALE`, or the refusal."""

    entry: Entry
    result: str | Exception


def deliver(client: Client, config: RedisConfig, entries: Sequence[Entry]) -> Iterator[list[Receipt]]:
    """Appends ``entries``, in order for each stream; what became of those of one stream comes as soon as it is known.

    If a stream is refused, the next one is tried. If Redis does not answer, nothing more is tried, except on a Cluster,
    where another server may answer.
    """
    by_stream: dict[str, list[Entry]] = {}
    for entry in entries:
        by_stream.setdefault(event_stream(config.stream, entry.camera_id), []).append(entry)
    for stream, group in by_stream.items():
        fenced = any(entry.epoch > 0 for entry in group)
        try:
            results = (_append_fenced if fenced else _append)(client, stream, group, config.max_events)
        except REDIS_ERRORS as error:
            yield [Receipt(entry, error) for entry in group]
            if not isinstance(error, ResponseError) and not is_cluster(client):
                return
        else:
            yield [Receipt(entry, result) for entry, result in zip(group, results, strict=True)]


def _append(client: Client, stream: str, entries: Sequence[Entry], max_events: int) -> list[str | Exception]:
    with client.pipeline(transaction=True) as pipeline:
        for entry in entries:
            pipeline.xadd(stream, cast("dict[Any, Any]", entry.fields), maxlen=max_events, approximate=True)
        replies = pipeline.execute(raise_on_error=False)
    return [reply.decode() if isinstance(reply, bytes) else reply for reply in replies]


def _append_fenced(client: Client, stream: str, entries: Sequence[Entry], max_events: int) -> list[str | Exception]:
    fenced = [Fenced(entry.camera_id, entry.epoch, entry.caused.age_s, entry.fields) for entry in entries]
    return [entry_id or STALE for entry_id in append_fenced(client, stream, fenced, max_events=max_events)]
