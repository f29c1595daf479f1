-- Writes a turn's discrete messages, opens and closes its streamed ones: `count` operations, as in _write.lua.
-- A repeated sequence returns the first reply. One before it has been answered already: it comes late, from a connection
-- that was given up, and the reply has no reader. Returns {'lost', status} | {'written', position…}.
--@keys meta
--@argv base session turn fence sequence count:number operations...
--@include _session.lua
--@include _turn.lua
--@include _write.lua
local key = turn_key(turn)
if redis.call('GET', fence_key(turn)) ~= fence then
  return {'lost', redis.call('HGET', key, TURN.status) or 'unknown'}
end
local last = redis.call('HMGET', key, TURN.write_sequence, TURN.write_reply)
if last[1] == sequence then return cjson.decode(last[2]) end
if last[1] and tonumber(last[1]) > tonumber(sequence) then return {'lost', 'overtaken by its repeat'} end
local reply = write_operations(turn, operations_at, count)
table.insert(reply, 1, 'written')
redis.call('HSET', key, TURN.write_sequence, sequence, TURN.write_reply, cjson.encode(reply))
return reply
