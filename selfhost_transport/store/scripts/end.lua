-- Ends a turn by its worker: last operations, then the terminal state. Exactly one end wins (P3).
-- `unless_steered`: 1 to refuse while a steer waits, else 0; `count` operations, as in _write.lua.
-- Messages still open that no operation closes are closed as cancelled first.
-- Returns {'lost', status, terminal} | {'steered', number waiting} | {'ended', position}.
--@keys meta
--@argv base session turn fence status keep_ms:number window_ms:number unless_steered count:number operations...
--@include _session.lua
--@include _turn.lua
--@include _write.lua
end_also_when_full()
if redis.call('GET', fence_key(turn)) ~= fence then
  local known = redis.call('HMGET', turn_key(turn), TURN.status, TURN.terminal_position, TURN.end_fence)
  if known[3] == fence then return {'ended', known[2]} end
  return {'lost', known[1] or 'unknown', known[2] or ''}
end
if unless_steered == '1' then
  local steers = redis.call('LLEN', of_session('y', turn))
  if steers > 0 then return {'steered', steers} end
end
leave_to_operations(turn, operations_at, count)
close_open_messages(turn)
local positions = write_operations(turn, operations_at, count)
local terminal = positions[#positions]
redis.call('HSET', turn_key(turn), TURN.end_fence, fence)
finish(turn, status, terminal, keep_ms)
tidy_after(terminal, window_ms)
return {'ended', terminal}
