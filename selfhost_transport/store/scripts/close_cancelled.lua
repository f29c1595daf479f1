-- Closes turns that a cancel has marked.
-- ARGV: base, session, keep ms, window ms, turns… (few at once: each is some writes). Returns how many were closed.
--@include _session.lua
--@include _turn.lua
end_also_when_full()
local closed, position = 0, nil
for at = 5, #ARGV do
  if redis.call('HEXISTS', K_ACTIVE, ARGV[at]) == 1 and redis.call('HGET', turn_key(ARGV[at]), 'cm') then
    position = close_turn(ARGV[at], 'cancelled', 'sc', 'rc', tonumber(ARGV[3]))
    closed = closed + 1
  end
end
if position then tidy_log(position, tonumber(ARGV[4])) end
return closed
