-- Ends a turn by its worker: last operations, then the terminal state. Exactly one end wins (P3).
-- ARGV: base, session, turn, fence, status, keep ms, window ms, 1 to refuse while a steer waits (else 0),
--   number of operations, operations as in _write.lua
-- Messages still open that no operation closes are closed as cancelled first.
-- Returns {'lost', status, terminal} | {'steered', number waiting} | {'ended', position}.
--@include _session.lua
--@include _turn.lua
--@include _write.lua
end_also_when_full()
local turn = ARGV[3]
if redis.call('GET', fence_key(turn)) ~= ARGV[4] then
  local known = redis.call('HMGET', turn_key(turn), 'st', 'tp', 'ef')
  if known[3] == ARGV[4] then return {'ended', known[2]} end
  return {'lost', known[1] or 'unknown', known[2] or ''}
end
if ARGV[8] == '1' then
  local steers = redis.call('LLEN', of_session('y', turn))
  if steers > 0 then return {'steered', steers} end
end
leave_to_operations(turn, 10, tonumber(ARGV[9]))
close_open_messages(turn)
local positions = write_operations(turn, 10, tonumber(ARGV[9]))
local terminal = positions[#positions]
redis.call('HSET', turn_key(turn), 'ef', ARGV[4])
finish(turn, ARGV[5], terminal, tonumber(ARGV[6]))
tidy_log(terminal, tonumber(ARGV[7]))
return {'ended', terminal}
