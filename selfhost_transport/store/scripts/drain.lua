-- Hands the steers that wait to the turn's worker: from now on they count as consumed.
-- KEYS: fence, steers. ARGV: fence. Returns 'lost' | the references of the steers, in order.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'lost' end
local steers = redis.call('LRANGE', KEYS[2], 0, -1)
redis.call('DEL', KEYS[2])
return steers
