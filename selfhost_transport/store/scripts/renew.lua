-- Renews a worker's leases on turns of one bucket, and trims the logs of their sessions.
-- `turns`, of each: turn, session, fence. Returns the turns whose lease is lost.
--@keys leases
--@argv base lease_ms:number window_ms:number turns...
--@include _names.lua
local lost = {}
--@include _clock.lua
local now = now_ms()
local expiry = string.format('%.0f', now + lease_ms)
local oldest = string.format('%.0f-0', math.max(0, now - window_ms))
for i = turns_at, #ARGV, 3 do
  local turn, session = ARGV[i], ARGV[i + 1]
  if redis.call('GET', base .. 'f:' .. part(turn) .. ':' .. session) == ARGV[i + 2] then
    redis.call('ZADD', leases, expiry, pair(turn, session))
    local log = base .. 'l:' .. session
    if redis.call('XTRIM', log, 'MINID', '~', oldest) > 0 then
      local first = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)
      if first[1] then redis.call('HSET', base .. 's:' .. session, SESSION.floor, first[1][1]) end
    end
  else
    lost[#lost + 1] = turn
  end
end
return lost
