local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local ids = {}
local i = 2
while i <= #ARGV do
  local camera, epoch, age_ms, size = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3])
  local raised = redis.call('HMGET', KEYS[2], camera, camera .. '@')
  -- A fence that is not a number holds nobody back: the next epoch writes it anew.
  local fence = tonumber(raised[1] or '0') or 0
  -- An event of no epoch is no owner's: a correction of what is past, beside those of a camera that the worker has.
  if epoch > 0 and epoch < fence and now_ms - age_ms >= math.min(fence, tonumber(raised[2] or fence) or fence) then
    ids[#ids + 1] = ''
  else
    if epoch > fence then redis.call('HSET', KEYS[2], camera, ARGV[i + 1], camera .. '@', now_ms) end
    ids[#ids + 1] = redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', unpack(ARGV, i + 4, i + 3 + size))
  end
  i = i + 4 + size
end
return ids
