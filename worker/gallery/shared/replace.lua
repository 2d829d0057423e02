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
