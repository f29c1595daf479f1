-- Ends a delivery: it was made, or is not needed any more.
--@keys due delivery
--@argv id
redis.call('DEL', delivery)
return redis.call('ZREM', due, id)
