-- One beat of a worker: it is alive, renews its leases, and learns what it gains, has lost and should give up.
-- ARGV[1]: JSON, see worker.fleet.leases.Leases.beat. Work grows with the worker's own cameras, never with the fleet.
local ask = cjson.decode(ARGV[1])
local worker, lease_ms = ask.worker, ask.lease_ms
local GONE_WORKERS_A_BEAT = 16
local UNTIL_MS = NOW_MS + lease_ms

begin(ask.incarnation, lease_ms)
local times = redis.call('HMGET', STATE, 'beat_ms', 'take_over_from_ms', 'claims_from_ms', 'joined_ms')
local beat_ms, take_over_from_ms, claims_from_ms, joined_ms =
  int(times[1]), int(times[2]), int(times[3]), int(times[4])

-- Where no worker at all was heard, it was Redis that was away: that time must not count against the leases.
local silence_ms = NOW_MS - beat_ms
if beat_ms > 0 and silence_ms > lease_ms / 2 then take_over_from_ms = NOW_MS + math.min(silence_ms, lease_ms) end
local may_claim = NOW_MS >= claims_from_ms
local may_take_over = may_claim and ask.take_over and NOW_MS >= take_over_from_ms

if redis.call('ZADD', WORKERS, UNTIL_MS, worker) == 1 then joined_ms = NOW_MS end
redis.call('HSET', STATE, 'beat_ms', NOW_MS, 'take_over_from_ms', take_over_from_ms, 'joined_ms', joined_ms)
if may_take_over then
  for _, gone in ipairs(redis.call('ZRANGEBYSCORE', WORKERS, '-inf', NOW_MS, 'LIMIT', 0, GONE_WORKERS_A_BEAT)) do
    forget(gone)
  end
end

-- Renew. A held epoch above the stored one means that Redis lost what it knew: epochs come from nowhere else.
local lost, changed, unknown, renewals = {}, {}, {}, {}
local kept, leaving, yielding = 0, 0, 0
local ids = {}
for i, lease in ipairs(ask.held) do ids[i] = lease[1] end
local records = #ids > 0 and redis.call('HMGET', EPOCHS, unpack(ids)) or {}
local revisions = #ids > 0 and redis.call('HMGET', REVISIONS, unpack(ids)) or {}
for i, lease in ipairs(ask.held) do
  local camera, epoch, revision, stage = lease[1], lease[2], lease[3], lease[4]
  local stored_epoch, owner = epoch_and_owner(records[i])
  if epoch < stored_epoch or (epoch == stored_epoch and owner ~= '' and owner ~= worker) then
    lost[#lost + 1] = camera
  else
    if epoch ~= stored_epoch or owner ~= worker then
      redis.call('HSET', EPOCHS, camera, epoch .. ' ' .. worker)
      redis.call('ZREM', FREE, camera)
    end
    renewals[#renewals + 1] = UNTIL_MS
    renewals[#renewals + 1] = camera
    if stage == 'kept' then kept = kept + 1 else leaving = leaving + 1 end
    if stage == 'yielded' then yielding = yielding + 1 end
    local stored_revision = int(revisions[i])
    if stored_revision < revision then
      unknown[#unknown + 1] = camera
    elseif stored_revision > revision then
      local document = document_of(camera) or ''
      changed[#changed + 1] = {camera, stored_revision, redis.call('SISMEMBER', PAUSED, camera), document}
    end
  end
end
if #renewals > 0 then redis.call('ZADD', LEASES, unpack(renewals)) end

-- The fair share: cameras by weight. Who does not know what it can carry counts as the average of the others.
local before = standing(worker)
local workers = redis.call('ZCARD', WORKERS)
local others = {}
for i, value in ipairs(redis.call('HMGET', STATE, unpack(SUMS))) do others[SUMS[i]] = int(value) - before[i] end
local weight = ask.weight
if weight < 0 then
  weight = others.weight > 0 and math.ceil(others.weight / math.max(1, workers - 1)) or ask.max_cameras
end
weight = math.min(weight, ask.max_cameras)
local cameras = redis.call('HLEN', CAMERAS) - redis.call('SCARD', PAUSED)
local share = weight > 0 and cameras * weight / (others.weight + weight) or 0
local few = math.floor(math.min(share, ask.max_cameras) + 1e-6)
local many = math.ceil(math.min(share, ask.max_cameras) - 1e-6)

-- Claim: up to the share rounded down at once, and rounded up where that is nobody else's. What nobody took for the
-- length of a lease, though nobody joined, is claimed beyond the share.
local available = 0
if may_claim then available = redis.call('ZCARD', FREE) end
if may_take_over then available = available + redis.call('ZCOUNT', LEASES, '-inf', NOW_MS) end
local at_once = math.max(0, few - kept)
at_once = at_once + math.max(0, math.min(many - math.max(kept, few), available - at_once - others.wanted))
local settled_ms = math.max(joined_ms, claims_from_ms)
local claimed = {}

local refused = {}
for _, camera in ipairs(ask.refused) do refused[camera] = true end

local function claim(camera, since_ms)
  local full = #claimed >= ask.most_claims or kept + leaving + #claimed >= ask.max_cameras
  if full or refused[camera] then return end
  if not to_be_read(camera) then
    redis.call('ZREM', FREE, camera)
    redis.call('ZREM', LEASES, camera)
    return
  end
  if #claimed >= at_once and NOW_MS - math.max(since_ms, settled_ms) < lease_ms then return end
  local stored_epoch = epoch_and_owner(redis.call('HGET', EPOCHS, camera))
  local epoch = math.max(stored_epoch + 1, WALL_MS)
  redis.call('HSET', EPOCHS, camera, epoch .. ' ' .. worker)
  redis.call('ZADD', LEASES, UNTIL_MS, camera)
  redis.call('ZREM', FREE, camera)
  claimed[#claimed + 1] =
    {camera, epoch, int(redis.call('HGET', REVISIONS, camera)), document_of(camera)}
end

local looked_at = ask.most_claims + #ask.refused
if may_claim and available > 0 and looked_at > 0 then
  local free = redis.call('ZRANGE', FREE, 0, looked_at - 1, 'WITHSCORES')
  for i = 1, #free, 2 do claim(free[i], int(free[i + 1])) end
end
if may_take_over and available > 0 and looked_at > 0 then
  local expired = redis.call('ZRANGEBYSCORE', LEASES, '-inf', NOW_MS, 'WITHSCORES', 'LIMIT', 0, looked_at)
  for i = 1, #expired, 2 do claim(expired[i], int(expired[i + 1])) end
end
kept = kept + #claimed
available = available - #claimed

-- Wish for more, or give up what others wish for. What is on its way to them is no longer wished for.
local wanted = 0
if math.min(share, ask.max_cameras) - kept >= math.max(1, share / 10) then wanted = math.min(few - kept, ask.most_claims) end
local room = math.max(0, math.min(many - kept, ask.most_claims))
local on_the_way = available + others.yielding + yielding
local surplus = 0
if ask.max_cameras > 0 and kept > share + 1e-6 then
  surplus = math.min(kept - few, others.wanted - on_the_way)
  -- Far above the share, it also fills up those who lack less than one camera, and so wish for none.
  if kept - share >= math.max(2, share / 5) then
    surplus = math.max(surplus, math.min(kept - many, others.room - on_the_way))
  end
  surplus = math.max(0, math.min(surplus, ask.most_yields))
end
stand(worker, before, {weight, wanted, room, yielding + surplus})

local unowned = redis.call('ZCARD', FREE) + redis.call('ZCOUNT', LEASES, '-inf', NOW_MS)
local told_incarnation = redis.call('HMGET', STATE, 'incarnation', 'change')
return {
  told_incarnation[1], int(told_incarnation[2]), workers, cameras, unowned, surplus, claimed, lost, changed, unknown,
}
