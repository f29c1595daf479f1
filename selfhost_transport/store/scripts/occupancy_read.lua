-- What the living processes contribute to a session's occupancy; a process lives as long as its lease on presence.
-- KEYS: occupancy. ARGV: base, session
-- Returns the number of presence members, then the contributions.
--@include _clock.lua
local found = {redis.call('HLEN', ARGV[1] .. 'r:' .. ARGV[2])}
local fields = redis.call('HGETALL', KEYS[1])
for at = 1, #fields, 2 do
  local lease = redis.call('ZSCORE', ARGV[1] .. 'nodes', fields[at])
  local told_until, contribution = string.match(fields[at + 1], '^(%d+) (.*)$')
  if lease and tonumber(lease) > now_ms then
    found[#found + 1] = contribution
  elseif tonumber(told_until) < now_ms then
    redis.call('HDEL', KEYS[1], fields[at])
  end
end
return found
