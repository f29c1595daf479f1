-- Suspends a turn until every call it waits for is answered.
-- ARGV: base, session, turn, fence, awaited calls (JSON list), window ms, limit ms (0: none), escalation ms (0: none; else
--   before the limit), entry that escalates, number of deposit fields, pairs of deposit fields for the invocation after
--   the limit, number of expiry answers, pairs of call and entry, number of operations, operations as in _write.lua
-- Answers that came first resume the turn at once. Returns {'lost', status} | {'suspended' | 'resumed', position}.
--@include _session.lua
--@include _turn.lua
--@include _write.lua
local turn, key = ARGV[3], of_session('t', ARGV[3])
if redis.call('GET', fence_key(turn)) ~= ARGV[4] then
  local known = redis.call('HMGET', key, 'st', 'sf_fence', 'sf_at')
  if known[2] == ARGV[4] then return {'suspended', known[3]} end
  return {'lost', known[1] or 'unknown'}
end
local limit_ms, escalate_ms = tonumber(ARGV[7]), tonumber(ARGV[8])
local at = 11
for _ = 1, tonumber(ARGV[10]) do
  redis.call('HSETNX', key, 'n' .. ARGV[at], ARGV[at + 1])
  at = at + 2
end
local expiries = tonumber(ARGV[at])
at = at + 1
for _ = 1, expiries do
  redis.call('HSET', key, 'd:' .. ARGV[at], ARGV[at + 1])
  at = at + 2
end
close_open_messages(turn)
local positions = write_operations(turn, at + 1, tonumber(ARGV[at]))
local id = positions[#positions]
redis.call('DEL', fence_key(turn))
redis.call('ZREM', LEASES, pair(turn, session))
redis.call('HSET', key, 'st', 'suspended', 'aw', ARGV[5], 'sp', '', 'sf_fence', ARGV[4], 'sf_at', id)
redis.call('HINCRBY', K_META, 'suspended', 1)
local outcome = 'suspended'
if all_answered(turn) then
  resume(turn)
  outcome = 'resumed'
else
  redis.call('HDEL', key, 'es', 'ex')
  if escalate_ms > 0 then
    redis.call('HSET', key, 'es', ARGV[9])
    if limit_ms > 0 then redis.call('HSET', key, 'ex', string.format('%.0f', now_ms() + limit_ms)) end
  end
  local first_ms = escalate_ms > 0 and escalate_ms or limit_ms
  if first_ms > 0 then set_deadline(turn, first_ms) end
  start_waiting()
end
tidy_log(id, tonumber(ARGV[6]))
return {outcome, id}
