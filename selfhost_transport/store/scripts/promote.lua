-- Starts a waiting turn now, before those that waited longer.
-- `owner`: whose turn it must be, with `owner_only` 1 (else 0); `max_active`: turns that may run at once (0: no limit).
-- Returns the status it had | {'forbidden'} | {'full', running} | nil for an unknown turn.
--@keys meta
--@argv base session turn owner owner_only max_active:number
--@include _session.lua
--@include _turn.lua
local fields = redis.call('HMGET', turn_key(turn), TURN.status, TURN.agent, TURN.owner)
if fields[1] and owner_only == '1' and fields[3] ~= owner then return {'forbidden'} end
if fields[1] ~= 'queued' then return fields[1] end
local running = running_turns()
if max_active > 0 and running >= max_active then return {'full', running} end
redis.call('LREM', base .. 'w:' .. session, 1, turn)
redis.call('HSET', turn_key(turn), TURN.status, 'pending')
enqueue(turn, fields[2])
return 'queued'
