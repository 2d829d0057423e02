-- The cameras that changed after change ARGV[1], at most ARGV[2] of them, in the order of their last changes.
-- From change 0 on, that is all of them, and the tombstones.
local changes = redis.call('ZRANGEBYSCORE', CHANGES, '(' .. ARGV[1], '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[2])
local found = {}
for i = 1, #changes, 2 do
  local camera = changes[i]
  local epoch, owner = epoch_and_owner(redis.call('HGET', EPOCHS, camera))
  local until_ms = int(redis.call('ZSCORE', LEASES, camera))
  found[#found + 1] = {
    camera, int(changes[i + 1]), int(redis.call('HGET', REVISIONS, camera)), redis.call('SISMEMBER', PAUSED, camera),
    document_of(camera) or '', epoch, until_ms > NOW_MS and owner or '',
  }
end
return found
