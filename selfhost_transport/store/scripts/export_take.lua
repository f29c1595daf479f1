-- Gives out the next turn that ended, in the order in which they did: none before the one given out last is exported.
-- That one is given out again: to the same process, whose reply was lost, or when its process let the lease expire.
-- KEYS: ended. ARGV: group, process, lease ms
-- Returns nil | {id, times given out, field, value…}.
local group, process, lease_ms = ARGV[1], ARGV[2], tonumber(ARGV[3])
if redis.call('EXISTS', KEYS[1]) == 0 then return nil end

local function answer(item, times)
  local reply = {item[1], times}
  for _, part in ipairs(item[2]) do reply[#reply + 1] = part end
  return reply
end

while true do
  local left = redis.call('XPENDING', KEYS[1], group, '-', '+', 1)[1]
  if not left then break end
  local id, holder = left[1], left[2]
  local item = redis.call('XRANGE', KEYS[1], id, id)[1]
  if item then
    if holder ~= process then
      if left[3] < lease_ms then return nil end
      redis.call('XCLAIM', KEYS[1], group, process, 0, id)
      redis.call('XGROUP', 'DELCONSUMER', KEYS[1], group, holder)
    else
      redis.call('XCLAIM', KEYS[1], group, process, 0, id)
    end
    return answer(item, left[4] + 1)
  end
  -- The limit has taken it meanwhile.
  redis.call('XACK', KEYS[1], group, id)
end
local read = redis.call('XREADGROUP', 'GROUP', group, process, 'COUNT', 1, 'STREAMS', KEYS[1], '>')
if not read then return nil end
return answer(read[1][2][1], 1)
