-- Publishes messages to a session: one entry, whatever their number.
-- ARGV: base, session, entry, series candidate, publish id or '', idempotency ms, window ms, retention ms,
--   groups (count, names…)
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
for index = 1, tonumber(ARGV[9]) do note_group(ARGV[9 + index], id) end
if publish_id ~= '' then redis.call('SET', K_ONCE, id, 'PX', ARGV[6]) end
keep_for(ARGV[8], id)
tidy_log(id, tonumber(ARGV[7]))
return {id, series, 0}
