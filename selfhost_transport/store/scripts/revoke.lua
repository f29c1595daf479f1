-- Adds revocations of tokens, drops those that no token can match any more, and notifies every gateway.
-- `fields`: one of each revocation, which holds all there is to know. Returns the number of revocations that hold.
--@keys revocations
--@argv channel ttl_ms:number fields...
--@include _clock.lua
local now = now_ms()
local held = redis.call('HGETALL', revocations)
for i = 1, #held, 2 do
  if tonumber(held[i + 1]) < now then redis.call('HDEL', revocations, held[i]) end
end
local until_ms = string.format('%.0f', now + ttl_ms)
for i = fields_at, #ARGV do redis.call('HSET', revocations, ARGV[i], until_ms) end
redis.call('PEXPIRE', revocations, ttl_ms)
redis.call('PUBLISH', channel .. DATABASE, 'changed')
return redis.call('HLEN', revocations)
