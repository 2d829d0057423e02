"""What redis-py leaves open or unannotated, typed as tests use it."""

from typing import Any, cast

import redis

from worker.events.codec import decode
from worker.types import Event


def command(client: redis.Redis, *words: str | bytes | int) -> Any:
    """The answer to a command that redis-py has no method for."""
    call: Any = client.execute_command
    return call(*words)


def entries_of(client: redis.Redis, stream: str, after: str = "") -> list[tuple[Any, dict[Any, Any]]]:
    """Ids and fields of what is in ``stream`` behind the id ``after``, oldest first: text or bytes, as ``client``
    decodes."""
    return cast("list[tuple[Any, dict[Any, Any]]]", client.xrange(stream, f"({after}" if after else "-"))


def events(redis_url: str) -> list[Event]:
    """All that a worker has published to the usual stream."""
    with redis.Redis.from_url(redis_url) as client:
        return [decode(fields) for _, fields in entries_of(client, "facestream:events")]
