-- Makes a socket the holder of a connection's members in one bucket, if it has any there, and cancels their leave.
-- Returns 1 if the connection has members in this bucket, else 0.
--@keys holder
--@argv base connection owner node remain_ms
--@include _holder.lua
if redis.call('EXISTS', holder) == 0 then return 0 end
hold(connection, owner, node, remain_ms)
return 1
