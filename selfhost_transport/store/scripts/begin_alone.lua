-- An attempt that is made alone begins: from here on it counts. Returns 1 | 0 when the lease is lost.
--@keys fence turn
--@argv holder_fence
if redis.call('GET', fence) ~= holder_fence then return 0 end
redis.call('HSET', turn, TURN.alone, 'begun')
return 1
