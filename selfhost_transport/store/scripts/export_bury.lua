-- Gives up delivering an item: it is kept apart for `keep_ms`, the newest 1,000, with the reason.
-- Returns 1 | 0 when it is no longer there.
--@keys ended buried
--@argv group item reason keep_ms
local found = redis.call('XRANGE', ended, item, item)[1]
if not found then return 0 end
redis.call('XADD', buried, 'MAXLEN', 1000, '*', ENDED.error, reason, unpack(found[2]))
redis.call('PEXPIRE', buried, keep_ms)
redis.call('XACK', ended, group, item)
return redis.call('XDEL', ended, item)
