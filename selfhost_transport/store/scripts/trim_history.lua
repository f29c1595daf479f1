-- Removes messages older than the retention from the history of one due session, with their records.
-- `limit`: publishes and messages per call; `empty_ms`: how long an empty session is remembered.
-- A turn goes as a whole, once its end is too old, and never while it is open; other messages go by their own time.
-- What goes is decided for all readers at once, by moving `SESSION.cut`: the history does not show what is gone by it
-- (history.py). Then a pass takes it out step by step. `SESSION.trim_cursor`: how far the pass has come;
-- `SESSION.trim_next`: when what it left is due.
-- Returns nil when no session is due, else the number of publishes taken. Call again until then.
--@keys sessions
--@argv base limit:number empty_ms:number
--@include _clock.lua
local now = now_ms()
local due = redis.call('ZRANGEBYSCORE', sessions, '-inf', string.format('%.0f', now), 'LIMIT', 0, 1)
if not due[1] then return nil end
local session = due[1]
local RECHECK_MS, GROUPS_PER_CALL = 60000, 64
-- Should this session be damaged, the script ends here and now: then it comes again behind the others of its bucket.
redis.call('ZADD', sessions, string.format('%.0f', now + RECHECK_MS), session)
--@include _session.lua
--@include _headers.lua
local pass = redis.call('HMGET', K_META, SESSION.retention, SESSION.cut, SESSION.trim_cursor, SESSION.trim_next)
local retention, cursor, next_ms = tonumber(pass[1] or ''), pass[3], tonumber(pass[4] or '')
if not retention and not cursor then
  redis.call('ZREM', K_RETENTION, session)
  return 0
end
local function recheck_ms() return now + math.min(retention or 0, RECHECK_MS) end

-- Turns that end before this millisecond are gone, and other messages that stand before it.
local cut = tonumber(pass[2] or '0')
if not cursor then cut = math.max(cut, now - retention) end

local function is_open(turn) return redis.call('HEXISTS', K_ACTIVE, turn) == 1 end

local kept_turns = {}
local function keeps_turn(turn)
  if kept_turns[turn] == nil then
    local first, last = turn_span(turn)
    local at_ms
    if is_open(turn) then
      at_ms = recheck_ms()
    elseif first then
      -- Turns of before spans were kept have no end: they go by their beginning.
      local ended_ms = split_id(last ~= '' and last or first)
      at_ms = ended_ms >= cut and ended_ms + (retention or 0)
    end
    if at_ms then next_ms = math.min(next_ms or at_ms, at_ms) end
    kept_turns[turn] = at_ms and true or false
  end
  return kept_turns[turn]
end

local function is_kept(headers)
  for _, transport in ipairs(headers) do
    local turn, question = transport['run-id'], transport['codec-message-id']
    if type(turn) ~= 'string' and type(question) == 'string' then
      turn = answer_to(question)
    end
    if type(turn) == 'string' and keeps_turn(turn) then return true end
  end
  return false
end

local function forget(id, headers, count)
  for index = 0, count - 1 do
    local ref = id .. ':' .. index
    -- Most messages have neither a record nor annotations, and then nothing else.
    if redis.call('UNLINK', of_message('m', ref), of_message('b', ref)) > 0 then
      redis.call('UNLINK', of_message('x', ref), of_message('v', ref), of_message('z', ref))
    end
  end
  for _, transport in ipairs(headers) do
    local turn, question = transport['run-id'], transport['codec-message-id']
    if type(turn) == 'string' then
      local _, last = turn_span(turn)
      if last == id then redis.call('HDEL', K_GROUPS, part(turn)) end
    elseif type(question) == 'string' then
      redis.call('HDEL', K_GROUPS, of_question(question))
    end
  end
  redis.call('XDEL', K_HISTORY, id)
end

-- Some of the turns and questions that are gone; over several calls all of them.
local function forget_groups()
  if redis.call('EXISTS', K_GROUPS) == 0 then return end
  local some = redis.call('HRANDFIELD', K_GROUPS, GROUPS_PER_CALL, 'WITHVALUES')
  for i = 1, #some, 2 do
    local field, value = some[i], some[i + 1]
    local answer, is_gone = string.match(value, '^>(.*)$'), false
    if answer then
      is_gone = not turn_span(answer)
    else
      is_gone = split_id(string.match(value, '(%S+)$')) < cut and not is_open(whole(field))
    end
    if is_gone then redis.call('HDEL', K_GROUPS, field) end
  end
end

local function later_of(one, other)
  local ms, counter = split_id(one)
  local other_ms, other_counter = split_id(other)
  if ms > other_ms or (ms == other_ms and counter > other_counter) then return one end
  return other
end

local low, high = cursor and '(' .. cursor or '-', string.format('%.0f', math.max(0, cut - 1))
local items = redis.call('XRANGE', K_HISTORY, low, high, 'COUNT', limit)
local is_whole, taken, messages, newest = #items < limit, 0, 0, nil
if #items > 0 then redis.call('HSET', K_META, SESSION.cut, string.format('%.0f', cut)) end
for i, item in ipairs(items) do
  local id, entry = item[1], item[2][2]
  local headers, count = headers_of(entry)
  cursor, messages = id, messages + count
  if not is_kept(headers) then
    forget(id, headers, count)
    taken, newest = taken + 1, id
  end
  if messages >= limit and i < #items then
    is_whole = false
    break
  end
end
if newest then
  local before = redis.call('HGET', K_META, SESSION.trimmed)
  redis.call('HSET', K_META, SESSION.trimmed, before and later_of(newest, before) or newest)
end
forget_groups()
if not is_whole then
  redis.call('HSET', K_META, SESSION.trim_cursor, cursor)
  if next_ms then redis.call('HSET', K_META, SESSION.trim_next, string.format('%.0f', next_ms)) end
  redis.call('ZADD', K_RETENTION, string.format('%.0f', now), session)
  return taken
end

redis.call('HDEL', K_META, SESSION.trim_cursor, SESSION.trim_next)
if not retention then
  redis.call('ZREM', K_RETENTION, session)
  return taken
end
local following = redis.call('XRANGE', K_HISTORY, string.format('%.0f', cut), '+', 'COUNT', 1)
if following[1] then
  local at_ms = split_id(following[1][1]) + retention
  next_ms = math.min(next_ms or at_ms, at_ms)
elseif not next_ms and redis.call('EXISTS', K_ACTIVE, K_LOG, base .. 'r:' .. session) > 0 then
  next_ms = now + RECHECK_MS
end
if next_ms then
  redis.call('ZADD', K_RETENTION, string.format('%.0f', math.max(next_ms, now + 1)), session)
else
  -- A client that resumes from a position still learns that it belongs to this session.
  redis.call('UNLINK', K_HISTORY, K_GROUPS, base .. 'k:' .. session)
  redis.call('PEXPIRE', K_META, math.max(retention, empty_ms))
  redis.call('PEXPIRE', K_HEAD, math.max(retention, empty_ms))
  redis.call('ZREM', K_RETENTION, session)
end
return taken
