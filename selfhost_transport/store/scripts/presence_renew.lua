-- Renews the lease of a process on the members it holds in one bucket; `lease ms` 0 gives it up at once.
-- KEYS: nodes. ARGV: node, lease ms. Returns 1 if it had the lease; 0 if it is new, or may have been taken for dead.
local now = redis.call('TIME')
local now_ms = tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000)
local until_ms = redis.call('ZSCORE', KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[1], string.format('%.0f', now_ms + tonumber(ARGV[2])), ARGV[1])
return until_ms and tonumber(until_ms) > now_ms and 1 or 0
