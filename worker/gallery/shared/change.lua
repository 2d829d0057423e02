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
-- Ids of removed samples are remembered, so that no older copy brings them back.
redis.call('ZREMRANGEBYRANK', KEYS[6], 0, -200001)
redis.call('HSET', KEYS[1], 'version', version, 'change', ARGV[4])
-- A reader that is further behind reads everything.
redis.call('XADD', KEYS[5], 'MAXLEN', '~', 1000, version .. '-0',
  'change', ARGV[4], 'kind', ARGV[5], 'people', ARGV[6], 'samples', ARGV[7])
return 'done'
