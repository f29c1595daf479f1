-- Reads a message's record and data together with the session's head, in one step.
-- KEYS: head, record, data. ARGV: the record's fields. Returns {head, data, field…}.
local head = redis.call('GET', KEYS[1])
local fields = redis.call('HMGET', KEYS[2], unpack(ARGV))
if not fields[1] then return {head, false, unpack(fields)} end
return {head, redis.call('GET', KEYS[3]), unpack(fields)}
