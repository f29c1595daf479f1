-- Renews the lease of a process on the members it holds in one bucket; `lease_ms` 0 gives it up at once.
-- Returns 1 if it had the lease; 0 if it is new, or may have been taken for dead.
--@keys nodes
--@argv node lease_ms:number
--@include _clock.lua
local now = now_ms()
local until_ms = redis.call('ZSCORE', nodes, node)
redis.call('ZADD', nodes, string.format('%.0f', now + lease_ms), node)
return until_ms and tonumber(until_ms) > now and 1 or 0
