-- Opens a step, or another attempt at one whose id was used before: its output replaces that of the earlier attempts.
-- ARGV: base, session, turn, fence, request (names this call, for repeats), step id, entry, then what ends the step: when
--   the turn is cancelled, when the turn is lost, when only its holder is lost
-- One step is open at a time. Returns {'lost', status} | {'open', step id} | {'started', serial, attempt}.
--@include _session.lua
--@include _turn.lua
local turn, request, step = ARGV[3], ARGV[5], ARGV[6]
local key = turn_key(turn)
if redis.call('GET', fence_key(turn)) ~= ARGV[4] then
  return {'lost', redis.call('HGET', key, 'st') or 'unknown'}
end
local before = redis.call('HMGET', key, 'sp', 'si', 'sn')
if before[1] and before[1] ~= '' then
  if before[3] ~= request then return {'open', before[2] or ''} end
  return {'started', before[1], tonumber(redis.call('HGET', key, 'S:' .. step))}
end
local serial = item_serial(create(ARGV[7]), redis.call('HGET', K_META, 'series'))
local attempt = redis.call('HINCRBY', key, 'S:' .. step, 1)
if attempt == 1 then redis.call('HINCRBY', key, 'sk', 1) end
redis.call('HSET', key, 'sp', serial, 'sl', serial, 'si', step, 'sx', 'open', 'sn', request, 'sc', ARGV[8], 'sf', ARGV[9], 'sd', ARGV[10])
redis.call('HDEL', key, 'sq', 'sr')
return {'started', serial, attempt}
