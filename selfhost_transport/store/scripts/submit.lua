-- Accepts a message and its turn in one step (P4), by the policy of the session or of the send.
-- `event`: or ''; `max_active`, `max_open`, `max_waiting` (for a worker), `max_wait_ms`: 0 for no limit; `burst_wait_ms`: the
-- longest wait of this send (0: any); `own_suspended_only`: 1 if the sender may end its own suspended turns only, else 0;
-- `parent`: what the turn hangs below, or ''; `fields`: pairs of further fields of the turn's hash (closing messages and limits).
-- Returns {'accepted', position, epoch, status, turns that wait before it, 1 if it waits longer than it should,
--     cursor, position of the cancel, number marked, marked…, interrupted…}: the marked of the interrupted are to be
--     closed (close_cancelled.lua); with a cursor more are to be interrupted (cancel.lua)
--   | {'repeated', position, epoch, status} | {'conflict'} | {'busy', open turns, turn… (some of them)}
--   | {'queue full', length} | {'too many', open turns} | {'forbidden', turn}
--   | {'overloaded', turns that wait for a worker, ms after which to try again}.
--@keys meta
--@argv base session entry new_epoch window_ms:number turn agent owner input event body_hash policy cancel_filter
--@argv cancel_value cancel_entry max_active:number queue_cap:number keep_ms:number once_ms retention_ms
--@argv max_open:number max_waiting:number max_wait_ms:number burst_wait_ms:number own_suspended_only parent fields...
--@include _session.lua
--@include _turn.lua
local key, waiting = turn_key(turn), base .. 'w:' .. session

-- Active turns that a refusal names at most.
local NAMED = 100
-- For how long an event id leads to its turn: a day.
local EVENT_KNOWN_MS = 86400000

-- The waiting turns of the same owner and agent, which this one will answer too.
local function take_waiting(same_owner, same_agent)
  local found = {}
  for _, other in ipairs(redis.call('LRANGE', waiting, 0, -1)) do
    local fields = redis.call('HMGET', turn_key(other), TURN.owner, TURN.agent, TURN.policy)
    if fields[1] == same_owner and fields[2] == same_agent and fields[3] == 'merge' then found[#found + 1] = other end
  end
  return found
end

local known = redis.call('HMGET', key, TURN.body_hash, TURN.input_position, TURN.status)
if known[2] then
  if known[1] ~= body_hash then return {'conflict'} end
  return {'repeated', known[2], redis.call('HGET', K_META, SESSION.epoch), known[3]}
end

local running, waits = running_turns(), redis.call('LLEN', waiting)
if policy == 'reject' and running + waits > 0 then
  index_open_turns()
  return extend({'busy', redis.call('HLEN', K_ACTIVE)}, redis.call('ZRANGE', K_OPEN, 0, NAMED - 1))
end
local full = max_active > 0 and running + waits >= max_active
local queued = (running + waits > 0 and (policy == 'queue' or policy == 'merge')) or (full and policy == 'concurrent')
local merged = {}
if policy == 'merge' and queued then merged = take_waiting(owner, agent) end
if queued and waits - #merged >= queue_cap then
  return {'queue full', waits}
end
local interrupted, cursor, marked, cancelled_at = {}, '', {}, nil
if policy == 'interrupt' then interrupted, cursor = matching(cancel_filter, cancel_value, '', '+inf') end
for _, other in ipairs(own_suspended_only == '1' and interrupted or {}) do
  local fields = redis.call('HMGET', turn_key(other), TURN.status, TURN.owner)
  if fields[1] ~= 'suspended' or fields[2] ~= owner then return {'forbidden', other} end
end
if max_open > 0 and cursor == '' and redis.call('HLEN', K_ACTIVE) - #interrupted >= max_open then
  return {'too many', max_open}
end
local length, again_ms = redis.call('XLEN', base .. 'q:' .. agent), nil
if not queued then
  if max_waiting > 0 and length >= max_waiting then return {'overloaded', length, 1000} end
  again_ms = too_long(agent, length, max_wait_ms)
  local refused_ms = again_ms and too_long(agent, length, burst_wait_ms)
  if refused_ms then return {'overloaded', length, refused_ms} end
end
-- Only now: a send that is refused leaves nothing behind.
local epoch = ensure_session(new_epoch)
local _
cancelled_at, _, marked = cancel_turns(interrupted, cancel_entry, keep_ms, owner, true)

local id = create(entry)
local status = queued and 'queued' or 'pending'
local tolerated = (policy == 'queue' or policy == 'merge') and 1 or max_active
redis.call('HSET', key, TURN.status, status, TURN.agent, agent, TURN.owner, owner, TURN.input, input,
  TURN.body_hash, body_hash, TURN.input_position, id, TURN.attempts, '0', TURN.fence, '0', TURN.tolerated, tolerated,
  TURN.policy, policy, unpack(ARGV, fields_at))
redis.call('HSET', K_ACTIVE, turn, owner)
redis.call('ZADD', K_OPEN, score_of(id), turn)
note_turn(turn, id)
note_answer(input, turn)
note_other_answer(parent, turn)
if event ~= '' then redis.call('SET', of_session('e', event), turn, 'PX', EVENT_KNOWN_MS) end

local early = redis.call('GETDEL', early_key('input', input)) or redis.call('GETDEL', early_key('turn', turn))
if early then
  cancel_turns({turn}, early, keep_ms, owner, true)
  status = 'cancelled'
elseif queued then
  redis.call('RPUSH', waiting, turn)
else
  enqueue(turn, agent)
end
for _, other in ipairs(merged) do close_turn(other, 'completed', TURN.step_cancelled, TURN.run_merged, keep_ms) end
keep_for(retention_ms, id)
tidy_log(id, window_ms)
local reply = {
  'accepted', id, epoch, status, queued and waits or length, again_ms and 1 or 0, cursor, cancelled_at or '', #marked,
}
return extend(reply, marked, interrupted)
