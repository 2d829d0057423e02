-- An owner that was superseded must not put back what its successor has gone on from. The epoch stays when the
-- state goes, until it expires.
local stored = tonumber(redis.call('HGET', KEYS[1], 'epoch') or '0') or 0
if tonumber(ARGV[1]) < stored then return 0 end
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'state', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
