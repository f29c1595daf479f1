-- Gives up delivering an item: it is kept apart for `keep_ms`, the newest 1,000, with the reason.
-- `event_id`: what the receiver knows it by, also when it is delivered again.
-- Returns 1 | 0 when it is no longer there.
--@keys ended buried
--@argv group item reason keep_ms event_id
local found = redis.call('XRANGE', ended, item, item)[1]
if not found then return 0 end
local fields = {ENDED.error, reason, ENDED.event_id, event_id}
for i = 1, #found[2], 2 do
  if found[2][i] ~= ENDED.event_id then
    fields[#fields + 1] = found[2][i]
    fields[#fields + 1] = found[2][i + 1]
  end
end
redis.call('XADD', buried, 'MAXLEN', 1000, '*', unpack(fields))
redis.call('PEXPIRE', buried, keep_ms)
redis.call('XACK', ended, group, item)
return redis.call('XDEL', ended, item)
