-- Suspends a turn until every call it waits for is answered.
-- `awaited`: calls, a JSON list; `limit_ms` (0: none); `escalate_ms` (0: none; else before the limit): when
-- `escalation_entry` is written. `fields`: `field_count` pairs of closing fields for the invocation after the limit; number
--   of expiry answers, pairs of call and entry; number of operations, operations as in _write.lua.
-- Answers that came first resume the turn at once. Returns {'lost', status} | {'suspended' | 'resumed', position}.
--@keys meta
--@argv base session turn fence awaited window_ms:number limit_ms:number escalate_ms:number escalation_entry
--@argv field_count:number fields...
--@include _session.lua
--@include _turn.lua
--@include _write.lua
local key = turn_key(turn)
if redis.call('GET', fence_key(turn)) ~= fence then
  local known = redis.call('HMGET', key, TURN.status, TURN.suspend_fence, TURN.suspend_position)
  if known[2] == fence then return {'suspended', known[3]} end
  return {'lost', known[1] or 'unknown'}
end
local i = fields_at
for _ = 1, field_count do
  redis.call('HSETNX', key, TURN.next .. ARGV[i], ARGV[i + 1])
  i = i + 2
end
local expiries = tonumber(ARGV[i])
i = i + 1
for _ = 1, expiries do
  redis.call('HSET', key, TURN.expiry_answer .. ARGV[i], ARGV[i + 1])
  i = i + 2
end
close_open_messages(turn)
local positions = write_operations(turn, i + 1, tonumber(ARGV[i]))
local id = positions[#positions]
redis.call('DEL', fence_key(turn))
redis.call('ZREM', LEASES, pair(turn, session))
redis.call('HSET', key, TURN.status, 'suspended', TURN.awaited, awaited, TURN.step_start, '',
  TURN.suspend_fence, fence, TURN.suspend_position, id)
redis.call('HINCRBY', K_META, SESSION.suspended, 1)
local outcome = 'suspended'
if all_answered(turn) then
  resume(turn)
  outcome = 'resumed'
else
  redis.call('HDEL', key, TURN.escalation, TURN.expires_at)
  if escalate_ms > 0 then
    redis.call('HSET', key, TURN.escalation, escalation_entry)
    if limit_ms > 0 then redis.call('HSET', key, TURN.expires_at, string.format('%.0f', now_ms() + limit_ms)) end
  end
  local first_ms = escalate_ms > 0 and escalate_ms or limit_ms
  if first_ms > 0 then set_deadline(turn, first_ms) end
  start_waiting()
  queue_for_webhooks(turn, 'suspended', id, 'suspended')
end
tidy_log(id, window_ms)
return {outcome, id}
