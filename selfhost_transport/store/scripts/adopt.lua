-- Takes over a started turn without a holder: its holder gave it up, or lost its lease.
-- `request` names this call, for repeats; `window_ms`: the longest time without a holder.
-- Writes nothing to the log, except what closes the step of a holder that was lost.
-- Returns {'unknown'} | {'pending'} | {'queued'} | {'suspended'} | {'ended', status} | {'owned', holder}
--   | {'held', …}, as _adoption.lua.
--@keys meta
--@argv base session turn holder request lease_ms window_ms
--@include _session.lua
--@include _turn.lua
--@include _adoption.lua
local fields = redis.call('HMGET', turn_key(turn), TURN.status, TURN.adoption_window, TURN.worker)
local status = fields[1]
if not status then return {'unknown'} end
if is_repeated(turn, request) then return held(turn) end
if redis.call('HEXISTS', K_ACTIVE, turn) == 0 then return {'ended', status} end
if is_cancelled(turn) then return {'ended', 'cancelled'} end
if status == 'pending' or status == 'queued' or status == 'suspended' then return {status} end
if redis.call('EXISTS', fence_key(turn)) == 1 then
  local expiry = redis.call('ZSCORE', LEASES, pair(turn, session))
  if not fields[2] or (expiry and tonumber(expiry) > now_ms()) then return {'owned', fields[3] or ''} end
  make_adoptable(turn, window_ms)
end
return hold(turn, holder, request, lease_ms, window_ms)
