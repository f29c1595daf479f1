-- Removes push subscriptions of a person. Returns how many were there.
--@keys subscriptions people
--@argv person removed...
local count = 0
for i = removed_at, #ARGV do count = count + redis.call('HDEL', subscriptions, ARGV[i]) end
if redis.call('EXISTS', subscriptions) == 0 then redis.call('ZREM', people, person) end
return count
