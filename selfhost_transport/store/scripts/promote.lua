-- Starts a waiting turn now, before those that waited longer.
-- ARGV: base, session, turn. Returns the status it had, or nil for an unknown turn.
--@include _session.lua
--@include _turn.lua
local turn = ARGV[3]
local fields = redis.call('HMGET', turn_key(turn), 'st', 'ag')
if fields[1] ~= 'queued' then return fields[1] end
redis.call('LREM', base .. 'w:' .. session, 1, turn)
redis.call('HSET', turn_key(turn), 'st', 'pending')
enqueue(turn, fields[2])
return 'queued'
