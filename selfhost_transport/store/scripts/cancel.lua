-- Cancels the turns a filter matches: authoritative, with the worker hung, dead or absent (P2).
-- ARGV: base, session, filter (turn|input|owner|connection|all), value, cancel entry, keep ms, window ms, early ms,
--   early (0|1), series candidate, turn id of the named input, requester, force (0|1: without asking hooks),
--   then '' three times, or of the reply to the call before: cursor, last, position
-- One call cancels some of them; the caller repeats it with the cursor until that is ''. Of those that match,
-- a few are closed; the others are marked, and the caller has them closed (close_cancelled.lua).
-- A filter that names a turn which does not exist yet is kept for `early ms` and applied when it does.
-- Returns {position, series, cursor, last, head, number matched, number asked, number marked, matched…, asked…, marked…,
-- already ended…}; `asked` are those of the matched whose agent's hook decides. The position is that of the cancel's entry,
-- '' while none has matched; after the last call without a match that of the first cancel of an ended turn, else the head.
-- Nothing of the matched is written after `head`.
--@include _session.lua
--@include _turn.lua
end_also_when_full()
local filter, value, keep_ms = ARGV[3], ARGV[4], tonumber(ARGV[6])
local cursor, last, position = ARGV[14], ARGV[15], ARGV[16] ~= '' and ARGV[16] or nil
local series = redis.call('HGET', K_META, 'series') or ARGV[10]
-- Turns that are sent meanwhile are not meant.
if last == '' then last = score_of(redis.call('GET', K_HEAD) or '0-0') end
local turns, asked, marked, ended = {}, {}, {}, {}
turns, cursor = matching(filter, value, cursor, last)
position, asked, marked = cancel_turns(turns, ARGV[5], keep_ms, ARGV[12], ARGV[13] == '1', position)
if #turns > 0 then
  tidy_log(position, tonumber(ARGV[7]))
elseif cursor == '' and not position then
  if filter == 'turn' or filter == 'input' then
    local turn = value
    if filter == 'input' then turn = ARGV[11] end
    local known = redis.call('HMGET', turn_key(turn), 'st', 'cp', 'tp')
    if known[1] then
      ended[1] = turn
      position = known[2] or known[3]
    elseif ARGV[9] == '1' then
      redis.call('SET', early_key(filter, value), ARGV[5], 'PX', ARGV[8])
    end
  end
  position = position or redis.call('GET', K_HEAD) or '0-0'
end
local head = redis.call('GET', K_HEAD) or '0-0'
return extend({position or '', series, cursor, last, head, #turns, #asked, #marked}, turns, asked, marked, ended)
