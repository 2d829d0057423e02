"""Appending to a stream so that a worker which has lost a camera cannot speak for it any more.

Beside each stream lies its fence: of each camera the highest epoch that was seen. An epoch is also the time (Redis
clock, ms) at which it began. An event of an older epoch is appended if it was caused before the newer one began, else
refused. Its age is what the worker measures, with a clock that nobody sets; what time it is now, Redis says. Where the
clock of Redis was set back, an epoch lies ahead of it: so the time at which the fence was raised (``CAMERA@``) counts
if it is the earlier one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha1
from typing import Any, Final, cast

import redis
from redis.exceptions import NoScriptError

from worker.redis.keys import beside


class Script:
    """A Lua script, sent whole only where Redis does not know it yet. All its keys must be in one slot."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._sha = ""

    def __call__(self, client: redis.Redis, keys: Sequence[str], arguments: Sequence[str | int]) -> Any:
        if self._sha:
            try:
                return client.evalsha(self._sha, len(keys), *keys, *arguments)
            except NoScriptError:
                # Redis was restarted, or another node serves these keys.
                pass
        reply = client.eval(self._text, len(keys), *keys, *arguments)
        self._sha = sha1(self._text.encode(), usedforsecurity=False).hexdigest()
        return reply


_APPEND: Final = Script("""
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local ids = {}
local i = 2
while i <= #ARGV do
  local camera, epoch, age_ms, size = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3])
  local raised = redis.call('HMGET', KEYS[2], camera, camera .. '@')
  local fence = tonumber(raised[1] or '0')
  if epoch < fence and now_ms - age_ms >= math.min(fence, tonumber(raised[2] or fence)) then
    ids[#ids + 1] = ''
  else
    if epoch > fence then redis.call('HSET', KEYS[2], camera, ARGV[i + 1], camera .. '@', now_ms) end
    ids[#ids + 1] = redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', unpack(ARGV, i + 4, i + 3 + size))
  end
  i = i + 4 + size
end
return ids
""")

_RAISE: Final = Script("""
local time = redis.call('TIME')
if tonumber(ARGV[2]) > tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or '0') then
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2], ARGV[1] .. '@', time[1] * 1000 + math.floor(time[2] / 1000))
end
""")


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
