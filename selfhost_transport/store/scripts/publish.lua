-- Publishes messages to a session: one entry, whatever their number.
-- `publish_id`: or ''; `turns`, of each turn written to: turn, the question it answers or '', what it hangs below or '';
--   turn '': the question waits for one.
-- Returns {position, epoch, repeated (0|1)}.
--@keys meta
--@argv base session entry new_epoch publish_id once_ms window_ms:number retention_ms turns...
--@include _session.lua
local epoch = ensure_session(new_epoch)
local K_ONCE = of_session('i', publish_id)
if publish_id ~= '' then
  local known = redis.call('GET', K_ONCE)
  if known then return {known, epoch, 1} end
end
local id = create(entry)
-- What is not kept has no part in history pages.
if string.sub(entry, 1, 1) == 'C' then note_written(id, turns_at, (#ARGV - turns_at + 1) / 3) end
if publish_id ~= '' then redis.call('SET', K_ONCE, id, 'PX', once_ms) end
keep_for(retention_ms, id)
tidy_log(id, window_ms)
return {id, epoch, 0}
