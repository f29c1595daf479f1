-- Closes turns that a cancel has marked: few at once, as each is some writes. Returns how many were closed.
--@keys meta
--@argv base session keep_ms:number window_ms:number turns...
--@include _session.lua
--@include _turn.lua
end_also_when_full()
local closed, position = 0, nil
for i = turns_at, #ARGV do
  if redis.call('HEXISTS', K_ACTIVE, ARGV[i]) == 1 and redis.call('HGET', turn_key(ARGV[i]), TURN.cancel_marked) then
    position = close_turn(ARGV[i], 'cancelled', TURN.step_cancelled, TURN.run_cancelled, keep_ms)
    closed = closed + 1
  end
end
if position then tidy_after(position, window_ms) end
return closed
