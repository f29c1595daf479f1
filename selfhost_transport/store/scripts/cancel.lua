-- Cancels the turns a filter matches: authoritative, with the worker hung, dead or absent (P2).
-- ARGV: base, session, filter (turn|input|owner|all), value, cancel entry, keep ms, window ms, early ms, early (0|1),
--   series candidate, turn id of the named input, requester, force (0|1: without asking hooks)
-- A filter that names a turn which does not exist yet is kept for `early ms` and applied when it does.
-- Returns {position, series, number matched, number asked, matched…, asked…, already ended…}; `asked` are those of the
-- matched whose agent's hook decides. Without a match the position is that of the
-- first cancel of an ended turn, else the head.
--@include _session.lua
--@include _turn.lua
end_also_when_full()
local filter, value, keep_ms = ARGV[3], ARGV[4], tonumber(ARGV[6])
local series = redis.call('HGET', K_META, 'series') or ARGV[10]
local turns, ended = matching(filter, value), {}
local position, asked = cancel_turns(turns, ARGV[5], keep_ms, ARGV[12], ARGV[13] == '1')
if position then
  tidy_log(position, tonumber(ARGV[7]))
elseif filter == 'turn' or filter == 'input' then
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
local reply = {position or redis.call('GET', K_HEAD) or '0-0', series, #turns, #asked}
for _, list in ipairs({turns, asked, ended}) do
  for _, turn in ipairs(list) do reply[#reply + 1] = turn end
end
return reply
