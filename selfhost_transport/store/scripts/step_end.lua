-- Ends the open step of a turn. Messages still open are closed as cancelled first.
-- ARGV: base, session, turn, fence, serial of the step's start, outcome, entry
-- Returns {'lost', status} | {'ended'}.
--@include _session.lua
--@include _turn.lua
end_also_when_full()
local turn, serial = ARGV[3], ARGV[5]
local key = turn_key(turn)
if redis.call('GET', fence_key(turn)) ~= ARGV[4] then
  return {'lost', redis.call('HGET', key, 'st') or 'unknown'}
end
-- Ended before: the answer was lost.
if redis.call('HGET', key, 'sp') ~= serial then return {'ended'} end
close_open_messages(turn)
create(ARGV[7])
redis.call('HSET', key, 'sp', '', 'sx', ARGV[6])
return {'ended'}
