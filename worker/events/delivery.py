"""Entries of the outbox into their streams: a transaction for each stream, fenced where a fleet shares the cameras."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from redis.exceptions import RedisError, ResponseError

from worker.config import RedisConfig
from worker.events.fencing import Fenced, append_fenced
from worker.events.spool import Entry
from worker.redis.client import Client, is_cluster
from worker.redis.keys import event_stream

STALE: Final = ""
"""In place of an entry's id: the epoch of its event is over."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of one entry: its ``entry_id`` in the stream, :data:`STALE`, or the refusal."""

    entry: Entry
    result: str | Exception


def deliver(client: Client, config: RedisConfig, entries: Sequence[Entry]) -> Iterator[list[Receipt]]:
    """Appends ``entries``, in order for each stream; what became of those of one stream comes as soon as it is known.

    Where a stream is refused, the next one is tried; where Redis does not answer, nothing more is, but on a Cluster,
    where another server may.
    """
    by_stream: dict[str, list[Entry]] = {}
    for entry in entries:
        by_stream.setdefault(event_stream(config.stream, entry.camera_id), []).append(entry)
    for stream, group in by_stream.items():
        fenced = any(entry.epoch > 0 for entry in group)
        try:
            results = (_append_fenced if fenced else _append)(client, stream, group, config.max_events)
        except (RedisError, OSError) as error:
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
