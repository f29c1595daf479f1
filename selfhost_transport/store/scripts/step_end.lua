-- Ends the open step of a turn. Messages still open are closed as cancelled first. `serial`: of the step's start.
-- Returns {'lost', status} | {'ended'}.
--@keys meta
--@argv base session turn fence serial outcome entry
--@include _session.lua
--@include _turn.lua
end_also_when_full()
local key = turn_key(turn)
if redis.call('GET', fence_key(turn)) ~= fence then
  return {'lost', redis.call('HGET', key, TURN.status) or 'unknown'}
end
-- Ended before: the answer was lost.
if redis.call('HGET', key, TURN.step_start) ~= serial then return {'ended'} end
close_open_messages(turn)
create(entry)
redis.call('HSET', key, TURN.step_start, '', TURN.step_outcome, outcome)
return {'ended'}
