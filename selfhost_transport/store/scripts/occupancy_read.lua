-- What the living processes contribute to a session's occupancy; a process lives as long as its lease on presence.
-- Returns the number of presence members, then the contributions.
--@keys occupancy
--@argv base session
--@include _clock.lua
local now = now_ms()
local found = {redis.call('HLEN', base .. 'r:' .. session)}
local fields = redis.call('HGETALL', occupancy)
for i = 1, #fields, 2 do
  local lease = redis.call('ZSCORE', base .. 'nodes', fields[i])
  local fresh_until, contribution = string.match(fields[i + 1], '^(%d+) (.*)$')
  if lease and tonumber(lease) > now then
    found[#found + 1] = contribution
  elseif tonumber(fresh_until) < now then
    redis.call('HDEL', occupancy, fields[i])
  end
end
return found
