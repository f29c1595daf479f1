-- Gives the position an attachment starts from; a session that was never used gets its series here.
-- ARGV: base, session, series candidate, ms an unused session is remembered
-- Returns {series, head, floor}.
--@include _session.lua
local series = redis.call('HGET', K_META, 'series')
if not series then
  series = ARGV[3]
  redis.call('HSET', K_META, 'series', series, 'floor', '0-0')
  redis.call('PEXPIRE', K_META, ARGV[4])
end
local head = redis.call('GET', K_HEAD)
-- Attached clients call this again from time to time.
if not head and redis.call('PTTL', K_META) >= 0 then redis.call('PEXPIRE', K_META, ARGV[4]) end
head = head or '0-0'
local floor = redis.call('HGET', K_META, 'floor')
if redis.call('EXISTS', K_LOG) == 0 then floor = head end
return {series, head, floor}
