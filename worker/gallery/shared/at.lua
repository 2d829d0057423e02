-- KEYS of a shared gallery, here and in the scripts that follow: meta, people, samples, vectors, changes, removed (and
-- more where a script says so). A copy of the gallery is named by three arguments: its incarnation, version and last
-- change. A change in the stream has the version as its id and names what it touched. It holds neither names nor vectors,
-- so that nothing of a removed person is left.
local at = redis.call('HMGET', KEYS[1], 'incarnation', 'version', 'change')
local function is_at(incarnation, version, change)
  return (at[1] or '') == incarnation and (at[2] or '') == version and (at[3] or '') == change
end
local function change_of(version)
  local found = redis.call('XRANGE', KEYS[5], version .. '-0', version .. '-0')
  return found[1] and found[1][2][2]
end
