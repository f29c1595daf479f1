-- Calls workers once more for the turns that wait in an agent's queue: a worker that was called has no room, or did not come.
-- Returns how many turns wait.
--@keys queue
--@argv base agent
--@include _names.lua
--@include _clock.lua
--@include _calling.lua
local waiting = redis.call('XLEN', queue)
if waiting > 0 then call_workers(base, agent) end
return waiting
