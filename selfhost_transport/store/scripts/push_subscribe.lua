-- Stores a person's push subscription, or renews it, for `keep_ms`. Beyond `most` the ones that expire first go.
-- `value`: when it expires, in ms, a space, and what it says. Returns how many the person has.
--@keys subscriptions people
--@argv person subscription value keep_ms:number most:number
--@include _clock.lua
local now = now_ms()
redis.call('HSET', subscriptions, subscription, value)
local held, kept = redis.call('HGETALL', subscriptions), {}
for i = 1, #held, 2 do
  local expires = tonumber(string.match(held[i + 1], '^%d+'))
  if expires <= now then
    redis.call('HDEL', subscriptions, held[i])
  else
    kept[#kept + 1] = {expires, held[i]}
  end
end
-- The newest has the latest expiry; of equal ones it stays, too.
table.sort(kept, function(one, other)
  if one[1] ~= other[1] then return one[1] < other[1] end
  return one[2] ~= subscription and (other[2] == subscription or one[2] < other[2])
end)
for i = 1, #kept - most do redis.call('HDEL', subscriptions, kept[i][2]) end
redis.call('PEXPIRE', subscriptions, keep_ms)
redis.call('ZREMRANGEBYSCORE', people, '-inf', string.format('%.0f', now))
redis.call('ZADD', people, string.format('%.0f', now + keep_ms), person)
redis.call('PEXPIRE', people, keep_ms)
return redis.call('HLEN', subscriptions)
