-- Gives out the next turn that ended, in the order in which they did: none before the one given out last is exported.
-- That one is given out again: to the same process, whose reply was lost, or when its process let the lease expire.
-- Returns nil | {id, times given out, field, value…} | ms until the lease of the process that has it ends, unless it is renewed.
--@keys ended
--@argv group process lease_ms:number
if redis.call('EXISTS', ended) == 0 then return nil end

local function answer(item, times)
  local reply = {item[1], times}
  for _, part in ipairs(item[2]) do reply[#reply + 1] = part end
  return reply
end

while true do
  local left = redis.call('XPENDING', ended, group, '-', '+', 1)[1]
  if not left then break end
  local id, holder = left[1], left[2]
  local item = redis.call('XRANGE', ended, id, id)[1]
  if item then
    if holder ~= process then
      if left[3] < lease_ms then return lease_ms - left[3] end
      redis.call('XCLAIM', ended, group, process, 0, id)
      redis.call('XGROUP', 'DELCONSUMER', ended, group, holder)
    else
      redis.call('XCLAIM', ended, group, process, 0, id)
    end
    return answer(item, left[4] + 1)
  end
  -- The limit has taken it meanwhile.
  redis.call('XACK', ended, group, id)
end
local read = redis.call('XREADGROUP', 'GROUP', group, process, 'COUNT', 1, 'STREAMS', ended, '>')
if not read then return nil end
return answer(read[1][2][1], 1)
