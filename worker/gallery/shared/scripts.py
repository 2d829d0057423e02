"""What is done to a shared gallery in one step: scripts that Redis runs undisturbed.

Every script takes ``KEYS`` meta, people, samples, vectors, changes, removed (and more where it says so). A copy of the
gallery is named by three arguments, its incarnation, version and last change. A change in the stream has the version
as its id and names what it touched; it holds neither names nor vectors, so that nothing of a removed person is left.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

KEY_NAMES: Final = ("meta", "people", "samples", "vectors", "changes", "removed")

KEPT_CHANGES: Final = 1000
"""Changes in the stream; who is further behind reads everything."""
TOUCHED_AT_MOST: Final = 2000
"""Ids of a change that touches more are not listed: readers then read everything."""
KEPT_TOMBSTONES: Final = 200_000
"""Ids of removed samples that are remembered, so that no older copy brings them back."""

_AT: Final = """
local at = redis.call('HMGET', KEYS[1], 'incarnation', 'version', 'change')
local function is_at(incarnation, version, change)
  return (at[1] or '') == incarnation and (at[2] or '') == version and (at[3] or '') == change
end
local function change_of(version)
  local found = redis.call('XRANGE', KEYS[5], version .. '-0', version .. '-0')
  return found[1] and found[1][2][2]
end
"""

NEWER: Final = (
    _AT
    + """
-- ARGV: the copy. Replies: missing | current | newer, with all that was touched since | everything (too far behind) |
-- other (this is not what the copy grew into).
if not at[1] then return {'missing'} end
if is_at(ARGV[1], ARGV[2], ARGV[3]) then return {'current'} end
if at[1] ~= ARGV[1] or tonumber(at[2]) <= tonumber(ARGV[2]) then return {'other'} end
local last = change_of(ARGV[2])
if not last then return {'everything'} end
if last ~= ARGV[3] then return {'other'} end
local touched, count = {people = {}, samples = {}}, 0
for _, entry in ipairs(redis.call('XRANGE', KEYS[5], '(' .. ARGV[2] .. '-0', '+')) do
  for place = 1, #entry[2], 2 do
    local ids = touched[entry[2][place]]
    if ids then
      if entry[2][place + 1] == '*' then return {'everything'} end
      for id in string.gmatch(entry[2][place + 1], '%S+') do
        if not ids[id] then ids[id], count = true, count + 1 end
      end
    end
  end
end
if count > LIMIT then return {'everything'} end
local people, samples = {}, {}
for id in pairs(touched.people) do
  people[#people + 1] = id
  people[#people + 1] = redis.call('HGET', KEYS[2], id) or ''
end
for id in pairs(touched.samples) do
  samples[#samples + 1] = id
  samples[#samples + 1] = redis.call('HGET', KEYS[3], id) or ''
  samples[#samples + 1] = redis.call('HGET', KEYS[4], id) or ''
end
return {'newer', redis.call('HGETALL', KEYS[1]), people, samples}
""".replace("LIMIT", str(TOUCHED_AT_MOST))
)

CHANGE: Final = (
    _AT
    + """
-- ARGV: the copy that is changed, id of the change, kind, touched people, touched samples, four counts, and then: meta
-- fields with values, people with names, people to remove, samples with record and vector, samples to remove.
local version = string.format('%d', tonumber(ARGV[2]) + 1)
if at[1] == ARGV[1] and change_of(version) == ARGV[4] then return 'done' end  -- only the reply was lost
if not is_at(ARGV[1], ARGV[2], ARGV[3]) then return 'conflict' end
local place = 13
local function take() place = place + 1; return ARGV[place - 1] end
for _ = 1, tonumber(ARGV[8]) do redis.call('HSET', KEYS[1], take(), take()) end
for _ = 1, tonumber(ARGV[9]) do redis.call('HSET', KEYS[2], take(), take()) end
for _ = 1, tonumber(ARGV[10]) do redis.call('HDEL', KEYS[2], take()) end
for _ = 1, tonumber(ARGV[11]) do
  local id = take()
  redis.call('HSET', KEYS[3], id, take())
  redis.call('HSET', KEYS[4], id, take())
end
for _ = 1, tonumber(ARGV[12]) do
  local id = take()
  redis.call('HDEL', KEYS[3], id)
  redis.call('HDEL', KEYS[4], id)
  redis.call('ZADD', KEYS[6], version, id)
end
redis.call('ZREMRANGEBYRANK', KEYS[6], 0, -1 - TOMBSTONES)
redis.call('HSET', KEYS[1], 'version', version, 'change', ARGV[4])
redis.call('XADD', KEYS[5], 'MAXLEN', '~', CHANGES, version .. '-0',
  'change', ARGV[4], 'kind', ARGV[5], 'people', ARGV[6], 'samples', ARGV[7])
return 'done'
""".replace("TOMBSTONES", str(KEPT_TOMBSTONES)).replace("CHANGES", str(KEPT_CHANGES))
)

REPLACE: Final = (
    _AT
    + """
-- KEYS 7 to 10: staged people, samples, vectors, removed. ARGV: the copy that is replaced (empty: none is there), and
-- then meta fields with values, of which the first are version and change.
if not is_at(ARGV[1], ARGV[2], ARGV[3]) then
  if at[3] == ARGV[7] then return 'done' end
  redis.call('DEL', KEYS[7], KEYS[8], KEYS[9], KEYS[10])
  return 'conflict'
end
for offset = 0, 2 do
  local staged, live = KEYS[7 + offset], KEYS[2 + offset]
  if redis.call('EXISTS', staged) == 1 then
    redis.call('RENAME', staged, live)
    redis.call('PERSIST', live)
  else
    redis.call('DEL', live)
  end
end
redis.call('ZUNIONSTORE', KEYS[6], 2, KEYS[6], KEYS[10], 'AGGREGATE', 'MAX')
redis.call('DEL', KEYS[10], KEYS[5], KEYS[1])
for place = 4, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[place], ARGV[place + 1]) end
redis.call('XADD', KEYS[5], ARGV[5] .. '-0', 'change', ARGV[7], 'kind', 'replaced', 'people', '*', 'samples', '*')
return 'done'
"""
)

RELEASE: Final = """
-- KEYS: restoring. ARGV: token.
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
"""

ACKNOWLEDGE: Final = """
-- KEYS: workers, acknowledged. ARGV: worker, version, milliseconds after which a silent worker is forgotten.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
redis.call('ZADD', KEYS[1], string.format('%.0f', now), ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
for _, worker in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now - tonumber(ARGV[3])))) do
  redis.call('ZREM', KEYS[1], worker)
  redis.call('HDEL', KEYS[2], worker)
end
"""

LEAVE: Final = """
-- KEYS: workers, acknowledged. ARGV: worker.
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
"""

WORKERS: Final = """
-- KEYS: workers, acknowledged. Replies the time in milliseconds, workers with their last heartbeats, and with versions.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
return {string.format('%.0f', now), redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES'), redis.call('HGETALL', KEYS[2])}
"""


def listed(ids: Sequence[str]) -> str:
    """Touched ids as a change lists them."""
    return "*" if len(ids) > TOUCHED_AT_MOST else " ".join(ids)


def flat(fields: Mapping[str, str]) -> list[str]:
    """Fields and values in turn, as a script takes them."""
    return [part for pair in fields.items() for part in pair]


def pairs(found: Any) -> dict[bytes, bytes]:
    """What a script replies as a list of fields and values."""
    return dict(zip(found[::2], found[1::2], strict=True))


def text(fields: Mapping[bytes, bytes]) -> dict[str, str]:
    """Fields and values as text."""
    return {key.decode(): value.decode() for key, value in fields.items()}
