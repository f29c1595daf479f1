-- Starts a turn that waits for an agent, or lets a resumed one continue, for a process that works on it step by step.
-- `request` names this call, for repeats; `window_ms`: the longest time without a holder.
-- Writes the entry that opens the invocation; steps are started one by one. No worker gets the turn any more.
-- Returns {'unknown'} | {'queued'} | {'suspended'} | {'ended', status} | {'started', holder}
--   | {'held', …}, as _adoption.lua.
--@keys meta
--@argv base session turn holder request lease_ms window_ms
--@include _session.lua
--@include _turn.lua
--@include _adoption.lua
local key = turn_key(turn)
local fields = redis.call('HMGET', key, TURN.status, TURN.attempts, TURN.run_start, TURN.resumes, TURN.queue_item,
  TURN.agent, TURN.worker)
local status = fields[1]
if not status then return {'unknown'} end
if is_repeated(turn, request) then return held(turn) end
if redis.call('HEXISTS', K_ACTIVE, turn) == 0 then return {'ended', status} end
if is_cancelled(turn) then return {'ended', 'cancelled'} end
if status == 'queued' or status == 'suspended' then return {status} end
if status ~= 'pending' then return {'started', fields[7] or ''} end
if fields[2] == '0' or fields[4] then
  note_turn(turn, create(fields[3]))
  redis.call('HDEL', key, TURN.resumes)
end
redis.call('HINCRBY', key, TURN.attempts, 1)
redis.call('HSET', key, TURN.step_start, '')
if fields[5] then redis.call('XDEL', base .. 'q:' .. fields[6], fields[5]) end
return hold(turn, holder, request, lease_ms, window_ms)
