-- Tries a delivery again in `after_ms`; with `counted` 0 this attempt does not count. Returns 1 | 0 when it has ended.
--@keys due delivery
--@argv id after_ms:number counted:number
--@include _clock.lua
if redis.call('EXISTS', delivery) == 0 then return 0 end
if counted == 0 then redis.call('HINCRBY', delivery, PUSH.attempts, -1) end
redis.call('ZADD', due, 'XX', string.format('%.0f', now_ms() + after_ms), id)
return 1
