-- Has a delivery that was given up made again, with all its attempts. Returns 1 | 0: no such letter | -1: its subscription
-- is gone, and so is the letter now.
--@keys undelivered due
--@argv base letter keep_ms:number
--@include _clock.lua
local item = redis.call('XRANGE', undelivered, letter, letter)[1]
if not item then return 0 end
local fields = {}
for i = 1, #item[2], 2 do fields[item[2][i]] = item[2][i + 1] end
redis.call('XDEL', undelivered, letter)
local person, subscription = fields[PUSH.person], fields[PUSH.subscription]
if redis.call('HEXISTS', base .. 'of:' .. person, subscription) == 0 then return -1 end
local id = fields[PUSH.delivery]
local key = base .. 'd:' .. id
redis.call('HSET', key, PUSH.person, person, PUSH.subscription, subscription, PUSH.content, fields[PUSH.content],
  PUSH.attempts, 0)
redis.call('PEXPIRE', key, keep_ms)
redis.call('ZADD', due, string.format('%.0f', now_ms()), id)
redis.call('PEXPIRE', due, keep_ms)
return 1
