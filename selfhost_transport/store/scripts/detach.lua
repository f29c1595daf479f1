-- Gives a turn up without writing anything, for another process to adopt. After `window_ms` the turn counts as lost.
-- Returns {'lost', status} | {'open', step id} | {'detached'}.
--@keys meta
--@argv base session turn fence window_ms
--@include _session.lua
--@include _turn.lua
--@include _adoption.lua
local key = turn_key(turn)
if redis.call('GET', fence_key(turn)) ~= fence then
  local known = redis.call('HMGET', key, TURN.status, TURN.detach_fence)
  if known[2] == fence then return {'detached'} end
  return {'lost', known[1] or 'unknown'}
end
local step = redis.call('HMGET', key, TURN.step_start, TURN.step_id)
if step[1] and step[1] ~= '' then return {'open', step[2] or ''} end
redis.call('HSET', key, TURN.detach_fence, fence)
make_adoptable(turn, window_ms)
return {'detached'}
