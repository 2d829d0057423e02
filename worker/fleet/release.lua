-- A worker hands cameras back, so that others claim them at once. ARGV[1]: JSON, see worker.fleet.leases.Leases.release.
local ask = cjson.decode(ARGV[1])
begin(ask.incarnation, ask.lease_ms)
for _, lease in ipairs(ask.cameras) do
  local camera, epoch = lease[1], lease[2]
  local stored_epoch, owner = epoch_and_owner(redis.call('HGET', EPOCHS, camera))
  if epoch > stored_epoch or (epoch == stored_epoch and owner == ask.worker) then
    redis.call('HSET', EPOCHS, camera, epoch .. ' ')
    redis.call('ZREM', LEASES, camera)
    offer(camera)
  end
end
if ask.leave then forget(ask.worker) end
