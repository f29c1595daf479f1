-- An attempt that is made alone begins: from here on it counts.
-- KEYS: fence, turn. ARGV: fence. Returns 1 | 0 when the lease is lost.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[2], 'ap', 'begun')
return 1
