-- Gives up a delivery: it is kept apart for `keep_ms`, the newest 1,000, with the reason. Returns 1 | 0 when it has ended.
--@keys due delivery undelivered
--@argv id reason keep_ms
local fields = redis.call('HMGET', delivery, PUSH.person, PUSH.subscription, PUSH.content, PUSH.attempts)
if not fields[1] then return 0 end
redis.call('XADD', undelivered, 'MAXLEN', 1000, '*', PUSH.delivery, id, PUSH.person, fields[1], PUSH.subscription, fields[2],
  PUSH.content, fields[3], PUSH.attempts, fields[4], PUSH.error, reason)
redis.call('PEXPIRE', undelivered, keep_ms)
redis.call('DEL', delivery)
redis.call('ZREM', due, id)
return 1
