-- Registers that a worker serves an agent, for `ttl_ms` (0: no longer); removes workers that stopped refreshing.
-- Returns how many there are.
--@keys workers
--@argv worker ttl_ms
--@include _clock.lua
local now = now_ms()
if ttl_ms == '0' then
  redis.call('ZREM', workers, worker)
else
  redis.call('ZADD', workers, string.format('%.0f', now + ttl_ms), worker)
  redis.call('PEXPIRE', workers, ttl_ms)
end
redis.call('ZREMRANGEBYSCORE', workers, '-inf', string.format('%.0f', now))
return redis.call('ZCARD', workers)
