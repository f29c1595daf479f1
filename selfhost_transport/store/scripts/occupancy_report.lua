-- Replaces what one process contributes to a session's occupancy, and notifies watchers.
-- `contribution`: '' for none; it expires after `remember_ms` without a refresh.
--@keys occupancy
--@argv base session node contribution remember_ms:number
--@include _clock.lua
local now = now_ms()
local K_USED = base .. 'used'
if contribution == '' then
  redis.call('HDEL', occupancy, node)
else
  redis.call('HSET', occupancy, node, string.format('%.0f', now + remember_ms) .. ' ' .. contribution)
  redis.call('PEXPIRE', occupancy, remember_ms)
end
if redis.call('EXISTS', occupancy) == 1 then
  redis.call('ZADD', K_USED, 'GT', string.format('%.0f', now + remember_ms), session)
else
  redis.call('ZREM', K_USED, session)
end
redis.call('ZREMRANGEBYSCORE', K_USED, '-inf', string.format('%.0f', now))
redis.call('PUBLISH', occupancy .. DATABASE, '')
return 1
