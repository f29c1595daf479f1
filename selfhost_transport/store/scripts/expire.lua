-- Handles one expired deadline of a bucket: an undecided cancel, a suspension that lasts too long, once to say
-- so and once to end it.
-- Returns nil | {turn, session, 'cancelled' | 'denied' | 'escalated' | 'resumed' | 'gone'}.
--@keys deadlines
--@argv base keep_ms:number window_ms:number
--@include _names.lua
--@include _clock.lua
local due = string.format('%.0f', now_ms())
local expired = redis.call('ZRANGEBYSCORE', deadlines, '-inf', due, 'LIMIT', 0, 1)
if not expired[1] then return nil end
redis.call('ZREM', deadlines, expired[1])
local turn, session = split_pair(expired[1])
--@include _session.lua
--@include _turn.lua
end_also_when_full()
local key = turn_key(turn)
local fields = redis.call('HMGET', key, TURN.status, TURN.hook_default, TURN.cancel_position, TURN.cancel_entry, TURN.awaited,
  TURN.escalation, TURN.expires_at, TURN.cancel_requester)
if fields[1] == 'cancelling' then
  if fields[2] == 'deny' and not fields[3] then
    local id = create(plain_denial(turn, fields[8] or ''))
    redis.call('HSET', key, TURN.status, 'active')
    redis.call('HDEL', key, TURN.cancel_entry, TURN.cancel_requester)
    tidy_log(id, window_ms)
    return {turn, session, 'denied'}
  end
  if not fields[3] then redis.call('HSET', key, TURN.cancel_position, fields[4]) end
  tidy_after(close_turn(turn, 'cancelled', TURN.step_cancelled, TURN.run_cancelled, keep_ms), window_ms)
  return {turn, session, 'cancelled'}
end
if not fields[1] and redis.call('HEXISTS', K_ACTIVE, turn) == 1 then leave_to_reaper(turn) end
if fields[1] ~= 'suspended' then return {turn, session, 'gone'} end
if fields[6] then
  local id = create(fields[6])
  queue_for_webhooks(turn, 'suspended', id, 'escalated')
  tidy_log(id, window_ms)
  redis.call('HDEL', key, TURN.escalation, TURN.expires_at)
  if fields[7] then redis.call('ZADD', DEADLINES, fields[7], pair(turn, session)) end
  return {turn, session, 'escalated'}
end
local id
for _, call in ipairs(cjson.decode(fields[5])) do
  local answer = redis.call('HGET', key, TURN.expiry_answer .. call)
  if answer and redis.call('HSETNX', key, TURN.answer .. call, '0-0') == 1 then
    id = create(answer)
    redis.call('HSET', key, TURN.answer .. call, id)
  end
end
if all_answered(turn) then resume(turn) end
if id then tidy_log(id, window_ms) end
return {turn, session, 'resumed'}
