-- A participant's message into an existing turn: a steer, or the answer to a call the turn waits for.
-- ARGV: base, session, entry, window ms, turn, kind (steer|answer), call, publish id or '', idempotency ms,
--   then pairs of deposit fields for the invocation that the last answer starts
-- The first answer to a call wins; an answer that comes before the suspension waits for it.
-- Returns {'accepted', position, series, status} | {'repeated', position, series, status} | {'resolved', position}
--   | {'ended', status} | {'unknown'}.
--@include _session.lua
--@include _turn.lua
local turn, kind, call, publish_id = ARGV[5], ARGV[6], ARGV[7], ARGV[8]
local key = turn_key(turn)
local fields = redis.call('HMGET', key, 'st', 'wk')
local status, worker = fields[1], fields[2]
local series = redis.call('HGET', K_META, 'series')
local K_ONCE = of_session('i', publish_id)
if publish_id ~= '' then
  local known = redis.call('GET', K_ONCE)
  if known then return {'repeated', known, series, status or 'unknown'} end
end
if not status then return {'unknown'} end
if kind == 'answer' then
  -- Before the end is checked: a late answer is rejected as such, even after the turn has ended.
  local first = redis.call('HGET', key, 'k:' .. call)
  if first then return {'resolved', first} end
end
if redis.call('HEXISTS', K_ACTIVE, turn) == 0 then return {'ended', status} end
if is_cancelled(turn) then return {'ended', 'cancelled'} end

local id = create(ARGV[3])
if publish_id ~= '' then redis.call('SET', K_ONCE, id, 'PX', ARGV[9]) end
if kind == 'answer' then
  redis.call('HSET', key, 'k:' .. call, id)
  for at = 10, #ARGV, 2 do redis.call('HSET', key, 'n' .. ARGV[at], ARGV[at + 1]) end
  if status == 'suspended' and all_answered(turn) then
    resume(turn)
    status = 'pending'
  end
else
  redis.call('RPUSH', of_session('y', turn), id .. ':0')
end
if worker then redis.call('PUBLISH', CONTROL, 'input ' .. pair(worker, pair(turn, redis.call('HGET', key, 'fn')))) end
tidy_log(id, tonumber(ARGV[4]))
return {'accepted', id, series, status}
