-- Makes a socket the holder of a connection's members in one bucket, if it has any there, and cancels their leave.
-- KEYS: the connection's `o:`. ARGV: base, connection, owner, node, remain ms
-- Returns 1 if the connection has members in this bucket, else 0.
local base = ARGV[1]
--@include _holder.lua
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
hold(ARGV[2], ARGV[3], ARGV[4], ARGV[5])
return 1
