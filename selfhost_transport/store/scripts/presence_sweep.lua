-- Takes members of one lost connection out, if its time has come. The check and the leave are one step: a connection
-- that was resumed, re-entered or left meanwhile is no longer in `gone`, and so each member leaves exactly once.
-- KEYS: gone. ARGV: base, '' (becomes the session), limit, events cap, window ms
-- Returns how many left, or nil when nothing is due. Call again until then.
local base = ARGV[1]
--@include _holder.lua
local now = redis.call('TIME')
local now_ms = tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000)
local due = redis.call('ZRANGEBYSCORE', GONE, '-inf', string.format('%.0f', now_ms), 'LIMIT', 0, 1)
if not due[1] then return nil end
local connection = due[1]
ARGV[2] = any_session(connection)
if not ARGV[2] then
  redis.call('ZREM', GONE, connection)
  return 0
end
KEYS[1] = base .. 's:' .. ARGV[2]
--@include _session.lua
--@include _presence.lua
return leave_some(connection, ARGV[3], ARGV[4], tonumber(ARGV[5]))
