-- Gives out the next turn that ended, in the order in which they did: none before the one given out last is exported,
-- which is given out again when its exporter was not heard of for the lease.
-- KEYS: ended. ARGV: group, consumer, lease ms
-- Returns nil | {id, times given out, field, value…}.
local group, consumer, lease_ms = ARGV[1], ARGV[2], ARGV[3]
if redis.call('EXISTS', KEYS[1]) == 0 then return nil end

local function answer(item, times)
  local reply = {item[1], times}
  for _, part in ipairs(item[2]) do reply[#reply + 1] = part end
  return reply
end

while true do
  local left = redis.call('XPENDING', KEYS[1], group, '-', '+', 1)
  if not left[1] then break end
  local is_gone = #redis.call('XRANGE', KEYS[1], left[1][1], left[1][1]) == 0
  if not is_gone and left[1][3] < tonumber(lease_ms) then return nil end
  if not is_gone then
    local claimed = redis.call('XCLAIM', KEYS[1], group, consumer, lease_ms, left[1][1])
    return answer(claimed[1], left[1][4] + 1)
  end
  -- The limit has taken it meanwhile.
  redis.call('XACK', KEYS[1], group, left[1][1])
end
local read = redis.call('XREADGROUP', 'GROUP', group, consumer, 'COUNT', 1, 'STREAMS', KEYS[1], '>')
if not read then return nil end
return answer(read[1][2][1], 1)
