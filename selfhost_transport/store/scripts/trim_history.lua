-- Takes what is older than its session's retention out of the history of one session that is due, with its records.
-- KEYS: retention. ARGV: base, '' (becomes the session), publishes per call, ms an empty session is remembered
-- Nothing is taken from the input of the first open turn on: a turn that waits for its answer keeps what it is about.
-- Returns nil when no session is due, else the number of publishes taken. Call again until then.
local now = redis.call('TIME')
local now_ms = tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000)
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now_ms), 'LIMIT', 0, 1)
if not due[1] then return nil end
ARGV[2] = due[1]
KEYS[1] = ARGV[1] .. 's:' .. ARGV[2]
--@include _session.lua
local RECHECK_MS, GROUPS_PER_CALL = 60000, 64
local limit, retention = tonumber(ARGV[3]), tonumber(redis.call('HGET', K_META, 'rt') or '')
if not retention then
  redis.call('ZREM', K_RETENTION, session)
  return 0
end

local function look_again(at_ms)
  redis.call('ZADD', K_RETENTION, string.format('%.0f', math.max(at_ms, now_ms + 1)), session)
end

-- Positions before this millisecond are taken.
local function boundary()
  local cut = now_ms - retention
  for _, turn in ipairs(redis.call('HKEYS', K_ACTIVE)) do
    local input = redis.call('HGET', of_session('t', turn), 'ip')
    if input then cut = math.min(cut, (split_id(input))) end
  end
  return cut
end

local function forget(item)
  local id, entry = item[1], item[2][2]
  local head, index = string.sub(entry, 2, string.find(entry, '\n', 1, true) - 1), 0
  for _ in string.gmatch(head, ';') do
    local ref = id .. ':' .. index
    local keys = {}
    for letter in string.gmatch('mxvbz', '.') do keys[#keys + 1] = of_message(letter, ref) end
    redis.call('UNLINK', unpack(keys))
    index = index + 1
  end
  redis.call('XDEL', K_HISTORY, id)
end

-- Some of the runs that lie before the cut; over several calls all of them.
local function forget_groups(cut)
  if redis.call('EXISTS', K_GROUPS) == 0 then return end
  local some = redis.call('HRANDFIELD', K_GROUPS, GROUPS_PER_CALL, 'WITHVALUES')
  for at = 1, #some, 2 do
    if split_id(some[at + 1]) < cut then redis.call('HDEL', K_GROUPS, some[at]) end
  end
end

local cut = boundary()
local items = redis.call('XRANGE', K_HISTORY, '-', string.format('%.0f', cut - 1), 'COUNT', limit)
for _, item in ipairs(items) do forget(item) end
if #items > 0 then redis.call('HSET', K_META, 'tr', items[#items][1]) end
forget_groups(cut)
if #items == limit then return #items end

local oldest = redis.call('XRANGE', K_HISTORY, '-', '+', 'COUNT', 1)
if oldest[1] then
  local at_ms = split_id(oldest[1][1]) + retention
  -- Older ones are left only where a turn is open.
  if at_ms <= now_ms then at_ms = now_ms + math.min(retention, RECHECK_MS) end
  look_again(at_ms)
elseif redis.call('EXISTS', K_ACTIVE, K_LOG, base .. 'r:' .. session) > 0 then
  look_again(now_ms + RECHECK_MS)
else
  -- Who comes back with a position is still told that it is one of this session.
  redis.call('UNLINK', K_HISTORY, K_GROUPS, base .. 'k:' .. session)
  redis.call('PEXPIRE', K_META, math.max(retention, tonumber(ARGV[4])))
  redis.call('PEXPIRE', K_HEAD, math.max(retention, tonumber(ARGV[4])))
  redis.call('ZREM', K_RETENTION, session)
end
return #items
