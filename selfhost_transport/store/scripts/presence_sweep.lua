-- Takes members of one lost connection out, if its time has come. The check and the leave are one step: a connection
-- that was resumed, re-entered or left meanwhile is no longer in `gone`, and so each member leaves exactly once.
-- `limit`: members at most; `kept`: events of the presence history.
-- Returns how many left, or nil when nothing is due. Call again until then.
--@keys gone
--@argv base limit kept window_ms:number
--@include _ours.lua
--@include _holder.lua
--@include _clock.lua
local now = now_ms()
local due = redis.call('ZRANGEBYSCORE', GONE, '-inf', string.format('%.0f', now), 'LIMIT', 0, 1)
if not due[1] then return nil end
local connection = due[1]
local session = if_ours(any_session, connection)
if not session then
  redis.call('ZREM', GONE, connection)
  return 0
end
--@include _session.lua
--@include _presence.lua
local left = if_ours(leave_some, connection, limit, kept, window_ms)
-- Members of a session that is damaged cannot be taken out; those of the others wait behind them.
if not left then redis.call('ZREM', GONE, connection) end
return left or 0
