-- Opens a step, or another attempt at one whose id was used before: its output replaces that of the earlier attempts.
-- `request` names this call, for repeats. What ends the step: `when_cancelled` and `when_lost` with its turn,
-- `when_abandoned` when only its holder is lost.
-- One step is open at a time. Returns {'lost', status} | {'open', step id} | {'started', serial, attempt}.
--@keys meta
--@argv base session turn fence request step entry when_cancelled when_lost when_abandoned
--@include _session.lua
--@include _turn.lua
local key = turn_key(turn)
if redis.call('GET', fence_key(turn)) ~= fence then
  return {'lost', redis.call('HGET', key, TURN.status) or 'unknown'}
end
local before = redis.call('HMGET', key, TURN.step_start, TURN.step_id, TURN.step_request)
if before[1] and before[1] ~= '' then
  if before[3] ~= request then return {'open', before[2] or ''} end
  return {'started', before[1], tonumber(redis.call('HGET', key, TURN.step_attempts .. step))}
end
local serial = item_serial(create(entry), redis.call('HGET', K_META, SESSION.epoch))
local attempt = redis.call('HINCRBY', key, TURN.step_attempts .. step, 1)
if attempt == 1 then redis.call('HINCRBY', key, TURN.step_count, 1) end
redis.call('HSET', key, TURN.step_start, serial, TURN.step_serial, serial, TURN.step_id, step, TURN.step_outcome, 'open',
  TURN.step_request, request, TURN.step_cancelled, when_cancelled, TURN.step_failed, when_lost,
  TURN.step_abandoned, when_abandoned)
redis.call('HDEL', key, TURN.write_sequence, TURN.write_reply)
return {'started', serial, attempt}
