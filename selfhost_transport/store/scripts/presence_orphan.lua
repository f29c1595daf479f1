-- Gives connections of one process whose lease expired the time after which their members leave.
-- KEYS: nodes. ARGV: base, limit
-- The time counts from now, not from the expiry: after an outage of everything clients first get to come back.
-- Returns the number of connections, or nil when no lease is expired. Call again until then.
local now = redis.call('TIME')
local now_ms = tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000)
local dead = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now_ms), 'LIMIT', 0, 1)
if not dead[1] then return nil end
local held = ARGV[1] .. 'd:' .. dead[1]
local connections = redis.call('SPOP', held, ARGV[2])
for _, connection in ipairs(connections) do
  local known = redis.call('HMGET', ARGV[1] .. 'o:' .. connection, 'node', 'remain')
  if known[1] == dead[1] then
    local due = string.format('%.0f', now_ms + tonumber(known[2]))
    redis.call('ZADD', ARGV[1] .. 'gone', 'NX', due, connection)
  end
end
if redis.call('EXISTS', held) == 0 then redis.call('ZREM', KEYS[1], dead[1]) end
return #connections
