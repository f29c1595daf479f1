-- Queues an event for each subscription of a person, due in `wait_ms`; it is kept for `keep_ms`. Once for each event, however
-- often it is queued. Returns the number of deliveries.
--@keys subscriptions due sent
--@argv base event person content wait_ms:number keep_ms:number
--@include _clock.lua
local held = redis.call('HGETALL', subscriptions)
if #held == 0 or not redis.call('SET', sent, '1', 'NX', 'PX', keep_ms) then return 0 end
local now, count = now_ms(), 0
for i = 1, #held, 2 do
  if tonumber(string.match(held[i + 1], '^%d+')) > now then
    local delivery = event .. ':' .. held[i]
    local key = base .. 'd:' .. delivery
    redis.call('HSET', key, PUSH.person, person, PUSH.subscription, held[i], PUSH.content, content, PUSH.attempts, 0)
    redis.call('PEXPIRE', key, keep_ms)
    redis.call('ZADD', due, string.format('%.0f', now + wait_ms), delivery)
    count = count + 1
  end
end
redis.call('PEXPIRE', due, keep_ms)
return count
