-- Keeps a turn that is being exported from being given to another process.
-- Returns 1 | 0: another process has it, or it is exported.
--@keys ended
--@argv group process item
if redis.call('EXISTS', ended) == 0 then return 0 end
local held = redis.call('XPENDING', ended, group, item, item, 1, process)
if not held[1] then return 0 end
redis.call('XCLAIM', ended, group, process, 0, item, 'JUSTID')
return 1
