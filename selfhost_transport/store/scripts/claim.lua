-- Starts a turn that waits for an agent, or lets a resumed one continue, for a process that works on it step by step.
-- ARGV: base, session, turn, holder, request (names this call, for repeats), lease ms, window ms (longest time without a
--   holder)
-- Writes the entry that opens the invocation; steps are started one by one. No worker gets the turn any more.
-- Returns {'unknown'} | {'queued'} | {'suspended'} | {'ended', status} | {'started', holder} | {'held', …}, as _adoption.lua.
--@include _session.lua
--@include _turn.lua
--@include _adoption.lua
local turn, request = ARGV[3], ARGV[5]
local key = turn_key(turn)
local fields = redis.call('HMGET', key, 'st', 'at', 'rs', 'ri', 'qi', 'ag', 'wk')
local status = fields[1]
if not status then return {'unknown'} end
if is_repeated(turn, request) then return held(turn) end
if redis.call('HEXISTS', K_ACTIVE, turn) == 0 then return {'ended', status} end
if is_cancelled(turn) then return {'ended', 'cancelled'} end
if status == 'queued' or status == 'suspended' then return {status} end
if status ~= 'pending' then return {'started', fields[7] or ''} end
if fields[2] == '0' or fields[4] then
  note_turn(turn, create(fields[3]))
  redis.call('HDEL', key, 'ri')
end
redis.call('HINCRBY', key, 'at', 1)
redis.call('HSET', key, 'sp', '')
if fields[5] then redis.call('XDEL', base .. 'q:' .. fields[6], fields[5]) end
return hold(turn, ARGV[4], request, ARGV[6], ARGV[7])
