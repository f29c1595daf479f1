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
if string.sub(entry, 1, 1) == 'C' then note_written(id, 10, tonumber(ARGV[9])) end
if publish_id ~= '' then redis.call('SET', K_ONCE, id, 'PX', ARGV[6]) end
keep_for(ARGV[8], id)
tidy_log(id, tonumber(ARGV[7]))
return {id, series, 0}
