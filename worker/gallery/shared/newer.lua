-- ARGV: the copy, how many ids are listed at most. Replies: missing | current | newer, with all that was touched since |
-- everything (too far behind) | other (this is not what the copy grew into).
if not at[1] then return {'missing'} end
if is_at(ARGV[1], ARGV[2], ARGV[3]) then return {'current'} end
if at[1] ~= ARGV[1] or tonumber(at[2]) <= tonumber(ARGV[2]) then return {'other'} end
local last = change_of(ARGV[2])
if not last then return {'everything'} end
if last ~= ARGV[3] then return {'other'} end
local touched, count = {people = {}, samples = {}}, 0
for _, entry in ipairs(redis.call('XRANGE', KEYS[5], '(' .. ARGV[2] .. '-0', '+')) do
  for place = 1, #entry[2], 2 do
    local ids = touched[entry[2][place]]
    if ids then
      if entry[2][place + 1] == '*' then return {'everything'} end
      for id in string.gmatch(entry[2][place + 1], '%S+') do
        if not ids[id] then ids[id], count = true, count + 1 end
      end
    end
  end
end
if count > tonumber(ARGV[4]) then return {'everything'} end
local people, samples = {}, {}
for id in pairs(touched.people) do
  people[#people + 1] = id
  people[#people + 1] = redis.call('HGET', KEYS[2], id) or ''
end
for id in pairs(touched.samples) do
  samples[#samples + 1] = id
  samples[#samples + 1] = redis.call('HGET', KEYS[3], id) or ''
  samples[#samples + 1] = redis.call('HGET', KEYS[4], id) or ''
end
return {'newer', redis.call('HGETALL', KEYS[1]), people, samples}
