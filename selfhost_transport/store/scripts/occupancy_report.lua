-- Replaces what one process contributes to a session's occupancy, and notifies watchers.
-- KEYS: occupancy. ARGV: base, session, node, contribution ('' for none), ms until it expires without a refresh
--@include _clock.lua
local base, session, node, contribution, remember_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local K_USED = base .. 'used'
if contribution == '' then
  redis.call('HDEL', KEYS[1], node)
else
  redis.call('HSET', KEYS[1], node, string.format('%.0f', now_ms + remember_ms) .. ' ' .. contribution)
  redis.call('PEXPIRE', KEYS[1], remember_ms)
end
if redis.call('EXISTS', KEYS[1]) == 1 then
  redis.call('ZADD', K_USED, 'GT', string.format('%.0f', now_ms + remember_ms), session)
else
  redis.call('ZREM', K_USED, session)
end
redis.call('ZREMRANGEBYSCORE', K_USED, '-inf', string.format('%.0f', now_ms))
redis.call('PUBLISH', KEYS[1] .. DATABASE, '')
return 1
