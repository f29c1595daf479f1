-- Writes a turn's discrete messages, opens and closes its streamed ones.
-- ARGV: base, session, turn, fence, sequence, number of operations, operations as in _write.lua
-- A repeated sequence returns the first reply. One before it has been answered already: it comes late, from a connection
-- that was given up, and the reply has no reader. Returns {'lost', status} | {'written', position…}.
--@include _session.lua
--@include _turn.lua
--@include _write.lua
local turn, key = ARGV[3], of_session('t', ARGV[3])
if redis.call('GET', fence_key(turn)) ~= ARGV[4] then
  return {'lost', redis.call('HGET', key, 'st') or 'unknown'}
end
local last = redis.call('HMGET', key, 'sq', 'sr')
if last[1] == ARGV[5] then return cjson.decode(last[2]) end
if last[1] and tonumber(last[1]) > tonumber(ARGV[5]) then return {'lost', 'overtaken by its repeat'} end
local reply = write_operations(turn, 7, tonumber(ARGV[6]))
table.insert(reply, 1, 'written')
redis.call('HSET', key, 'sq', ARGV[5], 'sr', cjson.encode(reply))
return reply
