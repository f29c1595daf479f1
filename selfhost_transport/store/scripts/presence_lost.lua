-- Notes that a socket was lost: the members of its connection leave after the time the connection asked for.
-- Does nothing when another socket holds the connection by now. Returns 1 if a leave is due, else 0.
--@keys holder
--@argv base connection owner
--@include _clock.lua
local known = redis.call('HMGET', holder, CONNECTION.owner, CONNECTION.remain)
if known[1] ~= owner then return 0 end
local due = now_ms() + tonumber(known[2])
redis.call('ZADD', base .. 'gone', 'NX', string.format('%.0f', due), connection)
return 1
