-- Hands the steers that wait to the turn's worker: from now on they count as consumed.
-- Returns 'lost' | the references of the steers, in order.
--@keys fence waiting
--@argv holder_fence
if redis.call('GET', fence) ~= holder_fence then return 'lost' end
local steers = redis.call('LRANGE', waiting, 0, -1)
redis.call('DEL', waiting)
return steers
