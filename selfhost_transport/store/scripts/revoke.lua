-- Adds revocations of tokens, drops those that no token can match any more, and notifies every gateway.
-- KEYS: revocations. ARGV: channel, ttl ms, then for each revocation its field; a field holds all there is to know.
-- Returns the number of revocations that hold.
local now = redis.call('TIME')
local now_ms = tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000)
local held = redis.call('HGETALL', KEYS[1])
for at = 1, #held, 2 do
  if tonumber(held[at + 1]) < now_ms then redis.call('HDEL', KEYS[1], held[at]) end
end
local until_ms = string.format('%.0f', now_ms + tonumber(ARGV[2]))
for at = 3, #ARGV do redis.call('HSET', KEYS[1], ARGV[at], until_ms) end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('PUBLISH', ARGV[1] .. DATABASE, 'changed')
return redis.call('HLEN', KEYS[1])
