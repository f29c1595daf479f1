-- Publishes messages to a session: one entry, whatever their number.
-- ARGV: base, session, entry, series candidate, publish id or '', idempotency ms, window ms, retention ms,
--   number of turns written to, for each: turn, the question it answers or '', what it hangs below or ''; turn '': the
--   question waits for one
-- Returns {position, series, repeated (0|1), floor}.
--@include _session.lua
local entry, publish_id = ARGV[3], ARGV[5]
local series = ensure_session(ARGV[4])
local K_ONCE = of_session('i', publish_id)
if publish_id ~= '' then
  local known = redis.call('GET', K_ONCE)
  if known then return {known, series, 1} end
end
local id = create(entry)
local turns = string.sub(entry, 1, 1) == 'C' and tonumber(ARGV[9]) or 0
for at = 10, 7 + 3 * turns, 3 do
  local turn, question = ARGV[at], ARGV[at + 1]
  if turn ~= '' then
    note_activity(turn, id, question, ARGV[at + 2])
  else
    note_question(question, id)
  end
end
if publish_id ~= '' then redis.call('SET', K_ONCE, id, 'PX', ARGV[6]) end
keep_for(ARGV[8], id)
tidy_log(id, tonumber(ARGV[7]))
return {id, series, 0}
