-- Gives connections of one process whose lease expired the time after which their members leave.
-- The time counts from now, not from the expiry: after an outage of everything clients first get to come back.
-- Returns the number of connections, or nil when no lease is expired. Call again until then.
--@keys nodes
--@argv base limit
--@include _ours.lua
--@include _clock.lua
local now = now_ms()
local dead = redis.call('ZRANGEBYSCORE', nodes, '-inf', string.format('%.0f', now), 'LIMIT', 0, 1)
if not dead[1] then return nil end
local held = base .. 'd:' .. dead[1]
local connections = call_if_ours('SPOP', held, limit) or {}
for _, connection in ipairs(connections) do
  local known = call_if_ours('HMGET', base .. 'o:' .. connection, CONNECTION.node, CONNECTION.remain) or {}
  if known[1] == dead[1] then
    local due = string.format('%.0f', now + tonumber(known[2]))
    redis.call('ZADD', base .. 'gone', 'NX', due, connection)
  end
end
if #connections == 0 or redis.call('EXISTS', held) == 0 then redis.call('ZREM', nodes, dead[1]) end
return #connections
