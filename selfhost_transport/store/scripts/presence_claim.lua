-- Makes a socket the holder of a connection's members in one bucket, if it has any there, and cancels their leave.
-- ARGV: base, connection, owner, node, remain ms. Returns 1 if the connection has members in this bucket, else 0.
local connection = ARGV[2]
local holder = ARGV[1] .. 'o:' .. connection
if redis.call('EXISTS', holder) == 0 then return 0 end
local owner, node, remain = ARGV[3], ARGV[4], ARGV[5]
KEYS[1], ARGV[2] = ARGV[1] .. 's:', ''
--@include _session.lua
--@include _presence.lua
hold(connection, owner, node, remain)
return 1
