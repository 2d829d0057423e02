-- The state of a camera's sightings, unless it is longer than ARGV[1] bytes; and how long it is.
local state = redis.call('HGET', KEYS[1], 'state') or ''
return {#state, #state <= tonumber(ARGV[1]) and state or ''}
