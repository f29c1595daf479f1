-- A turn was exported: it is not given out again.
--@keys ended
--@argv group item
if redis.call('EXISTS', ended) == 0 then return 0 end
redis.call('XACK', ended, group, item)
return redis.call('XDEL', ended, item)
