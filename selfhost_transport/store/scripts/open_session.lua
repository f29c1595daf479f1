-- Gives the position an attachment starts from; a session that was never used gets its epoch here, and is remembered for
-- `unused_ms`. Returns {epoch, head, floor}.
--@keys meta
--@argv base session new_epoch unused_ms
--@include _session.lua
local epoch = redis.call('HGET', K_META, SESSION.epoch)
if not epoch then
  if is_erased() then refuse_as_erased() end
  epoch = new_epoch
  redis.call('HSET', K_META, SESSION.epoch, epoch, SESSION.floor, '0-0')
  redis.call('PEXPIRE', K_META, unused_ms)
end
local head = redis.call('GET', K_HEAD)
-- Attached clients call this again from time to time.
if not head and redis.call('PTTL', K_META) >= 0 then redis.call('PEXPIRE', K_META, unused_ms) end
head = head or '0-0'
local floor = redis.call('HGET', K_META, SESSION.floor)
if redis.call('EXISTS', K_LOG) == 0 then floor = head end
return {epoch, head, floor}
