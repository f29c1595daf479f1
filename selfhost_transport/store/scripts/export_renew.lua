-- Keeps a turn that is being exported from being given to another process.
-- KEYS: ended. ARGV: group, process, id. Returns 1 | 0: another process has it, or it is exported.
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local held = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1, ARGV[2])
if not held[1] then return 0 end
redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[3], 'JUSTID')
return 1
