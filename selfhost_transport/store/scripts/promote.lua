-- Starts a waiting turn now, before those that waited longer.
-- ARGV: base, session, turn, owner whose turn it must be, 1 if it must be that owner's (else 0), turns that may run at
--   once (0: no limit)
-- Returns the status it had | {'forbidden'} | {'full', running} | nil for an unknown turn.
--@include _session.lua
--@include _turn.lua
local turn = ARGV[3]
local fields = redis.call('HMGET', turn_key(turn), 'st', 'ag', 'ow')
if fields[1] and ARGV[5] == '1' and fields[3] ~= ARGV[4] then return {'forbidden'} end
if fields[1] ~= 'queued' then return fields[1] end
local running, most = running_turns(), tonumber(ARGV[6])
if most > 0 and running >= most then return {'full', running} end
redis.call('LREM', base .. 'w:' .. session, 1, turn)
redis.call('HSET', turn_key(turn), 'st', 'pending')
enqueue(turn, fields[2])
return 'queued'
