"""Appending to a stream so that a worker which has lost a camera cannot speak for it any more.

Beside each stream lies its fence: of each camera the highest epoch that was seen. An epoch is also the time (Redis
clock, ms) at which it began. An event of an older epoch is appended if it was caused before the newer one began, else
refused. Its age is what the worker measures, with a clock that nobody sets; what time it is now, Redis says. Where the
clock of Redis was set back, an epoch lies ahead of it: so the time at which the fence was raised (``CAMERA@``) counts
if it is the earlier one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast

import redis

from worker.redis.keys import beside
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
