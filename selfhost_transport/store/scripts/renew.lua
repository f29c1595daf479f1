-- Renews a worker's leases on turns of one bucket, and trims the logs of their sessions.
-- KEYS: leases. ARGV: base, lease ms, window ms, then for each turn: turn, session, fence
-- Returns the turns whose lease is lost.
--@include _names.lua
local lost = {}
local now = redis.call('TIME')
local now_ms = tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000)
local expiry = string.format('%.0f', now_ms + tonumber(ARGV[2]))
local oldest = string.format('%.0f-0', math.max(0, now_ms - tonumber(ARGV[3])))
for at = 4, #ARGV, 3 do
  local turn, session = ARGV[at], ARGV[at + 1]
  if redis.call('GET', ARGV[1] .. 'f:' .. part(turn) .. ':' .. session) == ARGV[at + 2] then
    redis.call('ZADD', KEYS[1], expiry, pair(turn, session))
    local log = ARGV[1] .. 'l:' .. session
    if redis.call('XTRIM', log, 'MINID', '~', oldest) > 0 then
      local first = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)
      if first[1] then redis.call('HSET', ARGV[1] .. 's:' .. session, 'floor', first[1][1]) end
    end
  else
    lost[#lost + 1] = turn
  end
end
return lost
