-- What all scripts of a fleet begin with. KEYS are those of worker.redis.keys.fleet_keys, in that order.
local STATE, WORKERS, STANDINGS, EPOCHS, LEASES, FREE, CAMERAS, REVISIONS, PAUSED, CHANGES, REMOVED = unpack(KEYS)

-- What cannot be read as a number counts as 0: one damaged field must not end the script for the whole fleet.
local LARGEST = 2 ^ 53
local function int(text)
  local number = tonumber(text or 0) or 0
  return number >= -LARGEST and number <= LARGEST and number or 0
end

-- Set back, a clock would prolong every lease by as much: then the time of the fleet goes on from where it was.
local time = redis.call('TIME')
local WALL_MS = time[1] * 1000 + math.floor(time[2] / 1000)
local told = redis.call('HMGET', STATE, 'time_ms', 'ahead_ms')
local AHEAD_MS = math.max(int(told[2]), int(told[1]) - WALL_MS)
local NOW_MS = WALL_MS + AHEAD_MS

-- Before a script writes. A Redis without a fleet's incarnation is new, or came back empty: then nobody claims
-- anything until the owners had the time to say what is theirs.
local function begin(new_incarnation, lease_ms)
  redis.call('HSET', STATE, 'time_ms', NOW_MS, 'ahead_ms', AHEAD_MS)
  if redis.call('HSETNX', STATE, 'incarnation', new_incarnation) == 1 then
    redis.call('HSET', STATE, 'claims_from_ms', NOW_MS + lease_ms)
  end
end

-- HINCRBY would refuse a field that is not a number.
local function add(name, by)
  local sum = int(redis.call('HGET', STATE, name)) + by
  redis.call('HSET', STATE, name, string.format('%.0f', sum))
  return sum
end

-- The definition of a camera; one that is far too long is not sent, and is then refused by its reader.
local LONGEST_DOCUMENT = 65536
local function document_of(camera)
  local document = redis.call('HGET', CAMERAS, camera)
  return document and #document > LONGEST_DOCUMENT and 'too long' or document
end

local function epoch_and_owner(record)
  local epoch, owner = string.match(record or '', '^(%d+) (.*)$')
  return int(epoch), owner or ''
end

local function to_be_read(camera)
  return redis.call('HEXISTS', CAMERAS, camera) == 1 and redis.call('SISMEMBER', PAUSED, camera) == 0
end

-- A camera without a lease may be claimed, unless nobody is to read it.
local function offer(camera)
  if to_be_read(camera) then
    redis.call('ZADD', FREE, 'NX', NOW_MS, camera)
  else
    redis.call('ZREM', FREE, camera)
  end
end

-- What a live worker says of itself. The sums over all workers are kept, so that no beat has to look at each of them.
local SUMS = {'weight', 'wanted', 'room', 'yielding'}

local function standing(worker)
  local values = {}
  for value in string.gmatch(redis.call('HGET', STANDINGS, worker) or '0 0 0 0', '%d+') do
    values[#values + 1] = int(value)
  end
  for i = 1, #SUMS do values[i] = values[i] or 0 end
  return values
end

local function stand(worker, before, now)
  for i, name in ipairs(SUMS) do
    if now[i] ~= before[i] then add(name, now[i] - before[i]) end
  end
  redis.call('HSET', STANDINGS, worker, table.concat(now, ' '))
end

local function forget(worker)
  stand(worker, standing(worker), {0, 0, 0, 0})
  redis.call('HDEL', STANDINGS, worker)
  redis.call('ZREM', WORKERS, worker)
end
