-- Defines, changes and removes cameras. ARGV[1]: JSON, see worker.fleet.registry.CameraRegistry.
-- A removal leaves the revision as a tombstone for a while, so that no worker's copy brings the camera back.
local ask = cjson.decode(ARGV[1])
local TOMBSTONES_A_CALL = 20
begin(ask.incarnation, ask.lease_ms)

local function write(camera, revision, paused, document)
  redis.call('HSET', REVISIONS, camera, revision)
  redis.call('ZADD', CHANGES, add('change', 1), camera)
  if document then
    redis.call('HSET', CAMERAS, camera, document)
    redis.call(paused and 'SADD' or 'SREM', PAUSED, camera)
    redis.call('ZREM', REMOVED, camera)
  else
    redis.call('HDEL', CAMERAS, camera)
    redis.call('SREM', PAUSED, camera)
    redis.call('ZADD', REMOVED, NOW_MS, camera)
  end
  if redis.call('ZSCORE', LEASES, camera) then
    redis.call('ZREM', FREE, camera)
  else
    offer(camera)
  end
end

local function apply(change)
  local camera, document = change.id, change.document
  local revision = int(redis.call('HGET', REVISIONS, camera))
  local held = redis.call('HGET', CAMERAS, camera)
  local paused = redis.call('SISMEMBER', PAUSED, camera) == 1
  if change.kind == 'seed' then
    if revision >= change.revision then return 'known' end
    write(camera, change.revision, change.paused, document ~= '' and document)
    return 'seeded'
  end
  if change.fresh and held then return 'exists' end
  if change.expected and change.expected ~= revision then return 'stale' end
  local next_revision = math.max(revision + 1, WALL_MS)
  if change.kind == 'add' then
    if held == document then return 'unchanged' end
    write(camera, next_revision, paused, document)
    return held and 'changed' or 'added'
  end
  if not held then return 'missing' end
  if change.kind == 'remove' then
    write(camera, next_revision, false, nil)
    return 'removed'
  end
  local pause = change.kind == 'pause'
  if paused == pause then return 'unchanged' end
  write(camera, next_revision, pause, held)
  return 'changed'
end

local old = NOW_MS - ask.tombstone_ms
for _, camera in ipairs(redis.call('ZRANGEBYSCORE', REMOVED, '-inf', old, 'LIMIT', 0, TOMBSTONES_A_CALL)) do
  redis.call('HDEL', REVISIONS, camera)
  redis.call('ZREM', CHANGES, camera)
  redis.call('ZREM', REMOVED, camera)
end
local outcomes = {}
for i, change in ipairs(ask.changes) do outcomes[i] = apply(change) end
return outcomes
