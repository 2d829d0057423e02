local time = redis.call('TIME')
if tonumber(ARGV[2]) > (tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or '0') or 0) then
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2], ARGV[1] .. '@', time[1] * 1000 + math.floor(time[2] / 1000))
end
