-- Notes that a socket was lost: the members of its connection leave after the time the connection asked for.
-- KEYS: the connection's `o:`. ARGV: base, connection, owner
-- Does nothing when another socket holds the connection by now. Returns 1 if a leave is due, else 0.
local known = redis.call('HMGET', KEYS[1], 'owner', 'remain')
if known[1] ~= ARGV[3] then return 0 end
local now = redis.call('TIME')
local due = tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000) + tonumber(known[2])
redis.call('ZADD', ARGV[1] .. 'gone', 'NX', string.format('%.0f', due), ARGV[2])
return 1
