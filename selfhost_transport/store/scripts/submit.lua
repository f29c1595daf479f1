-- Accepts a message and its turn in one step (P4), by the policy of the session or of the send.
-- ARGV: base, session, entry, series candidate, window ms, turn id, agent, owner, input id, event id, body hash,
--   policy, cancel filter, cancel value, cancel entry, max active (0: no limit), queue cap, keep ms, idempotency ms,
--   retention ms, most open turns (0: any), most waiting for a worker (0: any), longest wait in ms (0: any), the same for
--   this send (0: any), 1 if the sender may end its own suspended turns only (else 0), what the turn hangs below or '', then
--   pairs of further fields of the turn's hash (the deposit and limits)
-- Returns {'accepted', position, series, status, turns that wait before it, 1 if it waits longer than it should,
--     cursor, position of the cancel, number marked, marked…, interrupted…}: the marked of the interrupted are to be closed
--     (close_cancelled.lua); with a cursor more are to be interrupted (cancel.lua) | {'repeated', position, series, status}
--   | {'conflict'} | {'busy', open turns, turn… (some of them)} | {'queue full', length} | {'too many', open turns} | {'forbidden', turn}
--   | {'overloaded', turns that wait for a worker, ms after which to try again}.
--@include _session.lua
--@include _turn.lua
local entry, turn, agent, owner, input, event = ARGV[3], ARGV[6], ARGV[7], ARGV[8], ARGV[9], ARGV[10]
local policy, max_active, keep_ms = ARGV[12], tonumber(ARGV[16]), tonumber(ARGV[18])
local key, waiting = turn_key(turn), base .. 'w:' .. session

-- Active turns that a refusal names at most.
local NAMED = 100

-- The waiting turns of the same owner and agent, which this one will answer too.
local function take_waiting(same_owner, same_agent)
  local found = {}
  for _, other in ipairs(redis.call('LRANGE', waiting, 0, -1)) do
    local fields = redis.call('HMGET', turn_key(other), 'ow', 'ag', 'po')
    if fields[1] == same_owner and fields[2] == same_agent and fields[3] == 'merge' then found[#found + 1] = other end
  end
  return found
end

local known = redis.call('HMGET', key, 'bh', 'ip', 'st')
if known[2] then
  if known[1] ~= ARGV[11] then return {'conflict'} end
  return {'repeated', known[2], redis.call('HGET', K_META, 'series'), known[3]}
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
if queued and waits - #merged >= tonumber(ARGV[17]) then
  return {'queue full', waits}
end
local interrupted, cursor, marked, cancelled_at = {}, '', {}, nil
if policy == 'interrupt' then interrupted, cursor = matching(ARGV[13], ARGV[14], '', '+inf') end
for _, other in ipairs(ARGV[25] == '1' and interrupted or {}) do
  local fields = redis.call('HMGET', turn_key(other), 'st', 'ow')
  if fields[1] ~= 'suspended' or fields[2] ~= owner then return {'forbidden', other} end
end
local most_open = tonumber(ARGV[21])
if most_open > 0 and cursor == '' and redis.call('HLEN', K_ACTIVE) - #interrupted >= most_open then
  return {'too many', most_open}
end
local most_waiting, length, again_ms = tonumber(ARGV[22]), redis.call('XLEN', base .. 'q:' .. agent), nil
if not queued then
  if most_waiting > 0 and length >= most_waiting then return {'overloaded', length, 1000} end
  again_ms = too_long(agent, length, tonumber(ARGV[23]))
  local refused_ms = again_ms and too_long(agent, length, tonumber(ARGV[24]))
  if refused_ms then return {'overloaded', length, refused_ms} end
end
-- Only now: a send that is refused leaves nothing behind.
local series = ensure_session(ARGV[4])
local _
cancelled_at, _, marked = cancel_turns(interrupted, ARGV[15], keep_ms, owner, true)

local id = create(entry)
local status = queued and 'queued' or 'pending'
local tolerated = (policy == 'queue' or policy == 'merge') and 1 or max_active
redis.call('HSET', key, 'st', status, 'ag', agent, 'ow', owner, 'in', input, 'bh', ARGV[11], 'ip', id, 'at', '0', 'fn', '0', 'qm', tolerated, 'po', policy, unpack(ARGV, 27))
redis.call('HSET', K_ACTIVE, turn, owner)
redis.call('ZADD', K_OPEN, score_of(id), turn)
note_turn(turn, id)
note_answer(input, turn)
note_other_answer(ARGV[26], turn)
if event ~= '' then redis.call('SET', of_session('e', event), turn, 'PX', 86400000) end

local early = redis.call('GETDEL', early_key('input', input)) or redis.call('GETDEL', early_key('turn', turn))
if early then
  cancel_turns({turn}, early, keep_ms, owner, true)
  status = 'cancelled'
elseif queued then
  redis.call('RPUSH', waiting, turn)
else
  enqueue(turn, agent)
end
for _, other in ipairs(merged) do close_turn(other, 'completed', 'sc', 'rm', keep_ms) end
keep_for(ARGV[20], id)
tidy_log(id, tonumber(ARGV[5]))
local reply = {'accepted', id, series, status, queued and waits or length, again_ms and 1 or 0, cursor, cancelled_at or '', #marked}
return extend(reply, marked, interrupted)
