-- Reads the records and data of messages together with the session's head, in one step.
-- `records`: record and data of each message; `fields`: of a record.
-- Returns {head, for each message nil without a record, else {data, field…}}; the data only of one that was changed.
--@keys head records...
--@argv fields...
local reply = {redis.call('GET', head)}
for i = 2, #KEYS, 2 do
  local found = false
  if redis.call('EXISTS', KEYS[i]) == 1 then
    local fields = redis.call('HMGET', KEYS[i], unpack(ARGV))
    found = {fields[1] and redis.call('GET', KEYS[i + 1]) or false, unpack(fields)}
  end
  reply[#reply + 1] = found
end
return reply
