-- Replaces what one process contributes to a session's occupancy, and notifies watchers.
-- `contribution`: '' for none; it expires after `remember_ms` without a refresh. `readers`: a JSON list of the client ids that are
-- attached through this process, '' where they are not named. A session that was erased has no occupancy.
--@keys occupancy
--@argv base session node contribution remember_ms:number readers
--@include _clock.lua
local now = now_ms()
local K_USED = base .. 'used'
local fresh_until = string.format('%.0f', now + remember_ms) .. ' '
-- What reads the counts only finds no lease under this name, and passes over it.
local named = 'readers ' .. node
if contribution == '' or redis.call('EXISTS', base .. 'erased:' .. redis.sha1hex(session)) == 1 then
  redis.call('HDEL', occupancy, node, named)
else
  redis.call('HSET', occupancy, node, fresh_until .. contribution)
  if readers == '' then
    redis.call('HDEL', occupancy, named)
  else
    redis.call('HSET', occupancy, named, fresh_until .. readers)
  end
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
