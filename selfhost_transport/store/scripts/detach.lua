-- Gives a turn up without writing anything, for another process to adopt.
-- ARGV: base, session, turn, fence, window ms: after that the turn counts as lost
-- Returns {'lost', status} | {'open', step id} | {'detached'}.
--@include _session.lua
--@include _turn.lua
--@include _adoption.lua
local turn, fence = ARGV[3], ARGV[4]
local key = turn_key(turn)
if redis.call('GET', fence_key(turn)) ~= fence then
  local known = redis.call('HMGET', key, 'st', 'df')
  if known[2] == fence then return {'detached'} end
  return {'lost', known[1] or 'unknown'}
end
local step = redis.call('HMGET', key, 'sp', 'si')
if step[1] and step[1] ~= '' then return {'open', step[2] or ''} end
redis.call('HSET', key, 'df', fence)
make_adoptable(turn, ARGV[5])
return {'detached'}
