-- Gives out deliveries that are due, at most `count`, each for `lease_ms`: if nothing was said of it by then, it is due again.
-- What has expired, or has no subscription any more, is removed.
-- Returns a list of {id, attempts with this one, person, subscription, content, what the subscription says}.
--@keys due
--@argv base lease_ms:number count:number
--@include _clock.lua
local now, found = now_ms(), {}
for _, delivery in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', string.format('%.0f', now), 'LIMIT', 0, count)) do
  local key = base .. 'd:' .. delivery
  local fields = redis.call('HMGET', key, PUSH.person, PUSH.subscription, PUSH.content)
  local value = fields[1] and redis.call('HGET', base .. 'of:' .. fields[1], fields[2])
  if value then
    redis.call('ZADD', due, string.format('%.0f', now + lease_ms), delivery)
    local attempts = redis.call('HINCRBY', key, PUSH.attempts, 1)
    found[#found + 1] = {delivery, attempts, fields[1], fields[2], fields[3], value}
  else
    redis.call('ZREM', due, delivery)
    redis.call('DEL', key)
  end
end
return found
