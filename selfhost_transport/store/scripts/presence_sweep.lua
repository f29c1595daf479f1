-- Takes members of one lost connection out, if its time has come. The check and the leave are one step: a connection
-- that was resumed, re-entered or left meanwhile is not in `gone` any more, and so each member leaves exactly once.
-- KEYS: gone. ARGV: base, '' (becomes the session), limit, events cap, window ms
-- Returns how many left, or nil when nothing is due. Call again until then.
local bucket = ARGV[1]
local now = redis.call('TIME')
local now_ms = tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000)
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now_ms), 'LIMIT', 0, 1)
if not due[1] then return nil end
local connection, name = due[1], nil
for _, field in ipairs(redis.call('HKEYS', bucket .. 'o:' .. connection)) do
  if string.sub(field, 1, 2) == 's:' then name = string.sub(field, 3) end
end
if not name then
  redis.call('ZREM', KEYS[1], connection)
  return 0
end
KEYS[1], ARGV[2] = bucket .. 's:' .. name, name
--@include _session.lua
--@include _presence.lua
return leave_some(connection, tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5]))
