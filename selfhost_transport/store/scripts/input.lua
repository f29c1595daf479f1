-- A participant's message into an existing turn: a steer, or the answer to a call the turn waits for.
-- `kind`: steer|answer; `publish_id`: or ''; `fields`: pairs of closing fields for the invocation that the last answer
-- starts. The first answer to a call wins; an answer that comes before the suspension waits for it.
-- Returns {'accepted', position, epoch, status} | {'repeated', position, epoch, status} | {'resolved', position}
--   | {'ended', status} | {'unknown'}.
--@keys meta
--@argv base session entry window_ms:number turn kind call publish_id once_ms fields...
--@include _session.lua
--@include _turn.lua
local key = turn_key(turn)
local fields = redis.call('HMGET', key, TURN.status, TURN.worker)
local status, worker = fields[1], fields[2]
local epoch = redis.call('HGET', K_META, SESSION.epoch)
local K_ONCE = of_session('i', publish_id)
if publish_id ~= '' then
  local known = redis.call('GET', K_ONCE)
  if known then return {'repeated', known, epoch, status or 'unknown'} end
end
if not status then
  if redis.call('HEXISTS', K_ACTIVE, turn) == 1 then leave_to_reaper(turn) end
  return {'unknown'}
end
if kind == 'answer' then
  -- Before the end is checked: a late answer is rejected as such, even after the turn has ended.
  local first = redis.call('HGET', key, TURN.answer .. call)
  if first then return {'resolved', first} end
end
if redis.call('HEXISTS', K_ACTIVE, turn) == 0 then return {'ended', status} end
if is_cancelled(turn) then return {'ended', 'cancelled'} end

local id = create(entry)
if publish_id ~= '' then redis.call('SET', K_ONCE, id, 'PX', once_ms) end
if kind == 'answer' then
  redis.call('HSET', key, TURN.answer .. call, id)
  for i = fields_at, #ARGV, 2 do redis.call('HSET', key, TURN.next .. ARGV[i], ARGV[i + 1]) end
  if status == 'suspended' and all_answered(turn) then
    resume(turn)
    status = 'pending'
  end
else
  redis.call('RPUSH', of_session('y', turn), id .. ':0')
end
if worker then notify_worker(base, worker, 'input ' .. pair(worker, pair(turn, redis.call('HGET', key, TURN.fence)))) end
tidy_log(id, window_ms)
return {'accepted', id, epoch, status}
