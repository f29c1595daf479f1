-- Shared by every script that writes to a session. All names are built from `base`, what every key of the bucket starts
-- with, and `session`, and so carry the same hash tag. Needs both: as arguments, or as locals of the script before this.
--@include _names.lua
--@include _clock.lua
local K_META, K_HEAD = base .. 's:' .. session, base .. 'p:' .. session
local K_LOG, K_HISTORY = base .. 'l:' .. session, base .. 'h:' .. session
local K_GROUPS, K_ACTIVE = base .. 'g:' .. session, base .. 'a:' .. session
local K_RETENTION = base .. 'retention'
local CHANNEL = base .. 'n:' .. session .. DATABASE

local function of_session(letter, id) return base .. letter .. ':' .. part(id) .. ':' .. session end
-- A message's reference, `<position>:<index>`, is the service's own and always of that shape.
local function of_message(letter, ref) return base .. letter .. ':' .. ref .. ':' .. session end

local function split_id(id)
  local dash = string.find(id, '-', 1, true)
  return tonumber(string.sub(id, 1, dash - 1)), tonumber(string.sub(id, dash + 1))
end

-- Makes sure that the log exists and continues above the head, also after it expired or the clock stepped back.
-- Returns the id to use for the next entry: '*' wherever Redis' own choice is safe, and so after a script's first.
local log_is_ready = false
local function next_id()
  if log_is_ready then return '*' end
  log_is_ready = true
  local head = redis.call('GET', K_HEAD)
  if not head or redis.call('EXISTS', K_LOG) == 1 then return '*' end
  redis.call('HSET', K_META, SESSION.floor, head)
  local ms = split_id(head)
  if now_ms() > ms then return '*' end
  return string.format('%.0f-0', ms + 1)
end

-- A counter has three digits on the wire: near its end move to the next millisecond (serials, rule 3).
local function keep_counter_small(id)
  if #id >= 17 then
    local ms, counter = split_id(id)
    if counter >= 990 then redis.call('XSETID', K_LOG, string.format('%.0f-0', ms + 1)) end
  end
end

-- Writes an entry to the log and announces it with its predecessor's position. Returns its position.
local function emit(entry)
  local id = redis.call('XADD', K_LOG, next_id(), LOG.entry, entry)
  keep_counter_small(id)
  local previous = redis.call('GETSET', K_HEAD, id) or '0-0'
  redis.call('PUBLISH', CHANNEL, id .. ' ' .. previous .. ' ' .. entry)
  return id
end

-- What is left of a session that was erased, for a while: a key without its name.
local function tombstone() return base .. 'erased:' .. redis.sha1hex(session) end
local function is_erased() return redis.call('EXISTS', tombstone()) == 1 end
-- Ends a script, which has written nothing yet. The word is known to redis_io/refusals.py.
local function refuse_as_erased() error('SESSIONERASED', 0) end

-- Gives the session its epoch on first use (serials, rule 8). Returns the epoch.
local function ensure_session(candidate)
  local known = redis.call('HMGET', K_META, SESSION.epoch, SESSION.erasing)
  local epoch = known[1]
  if known[2] then refuse_as_erased() end
  if not epoch then
    if is_erased() then refuse_as_erased() end
    epoch = candidate
    redis.call('HSET', K_META, SESSION.epoch, epoch, SESSION.floor, '0-0')
  elseif redis.call('PTTL', K_META) >= 0 then
    -- First a write that a full Redis refuses, so that nothing of the script happens then.
    redis.call('HSET', K_META, SESSION.epoch, epoch)
    redis.call('PERSIST', K_META)
  end
  return epoch
end

-- Notes how long messages of this session are kept, 0 for no limit, and that it has one from `id` on. Not to be the first
-- write of a script.
local function keep_for(retention_ms, id)
  if retention_ms == '0' then
    -- What was begun to be taken is gone for readers already: that is finished.
    if redis.call('HDEL', K_META, SESSION.retention) == 1 and redis.call('HEXISTS', K_META, SESSION.trim_cursor) == 0 then
      redis.call('ZREM', K_RETENTION, session)
    end
    return
  end
  redis.call('HSET', K_META, SESSION.retention, retention_ms)
  redis.call('ZADD', K_RETENTION, 'LT', string.format('%.0f', split_id(id) + tonumber(retention_ms)), session)
end

-- Trims the log to the resume window and lets it expire when nothing is running; a token never pays for this.
local function tidy_log(id, window_ms)
  local ms = split_id(id)
  if redis.call('XTRIM', K_LOG, 'MINID', '~', string.format('%.0f-0', math.max(0, ms - window_ms))) > 0 then
    local first = redis.call('XRANGE', K_LOG, '-', '+', 'COUNT', 1)
    if first[1] then redis.call('HSET', K_META, SESSION.floor, first[1][1]) end
  end
  if redis.call('EXISTS', K_ACTIVE) == 1 then
    redis.call('PERSIST', K_LOG)
  else
    redis.call('PEXPIRE', K_LOG, window_ms)
  end
end

-- Writes a publish to the log and to the history.
local function create(entry)
  local id = emit(entry)
  if string.sub(entry, 1, 1) == 'C' then redis.call('XADD', K_HISTORY, id, LOG.entry, entry) end
  return id
end

-- Gives back the room that a growing text keeps in reserve, up to as much again, once it has stopped growing.
local function shrink_text(ref)
  local key = of_message('x', ref)
  -- The reserve of a long one is small beside it, and copying it would keep others waiting.
  local length = redis.call('STRLEN', key)
  if length <= 64 or length > 262144 then return end
  local text = redis.call('GET', key)
  if text then redis.call('SET', key, text, 'KEEPTTL') end
end

-- The index of turns. A turn -> "<first> <last>": its first position, which is that of its question, and its last; only
-- "<first>" while a worker's turn is open. "q <codec message id>" of a question -> ">" and the turn that answers it, or
-- without one "<first> <last>" of its own. History pages are cut between turns, and retention takes whole ones.
local function of_question(question) return pair('q', question) end

local function span_of(field)
  local known = redis.call('HGET', K_GROUPS, field)
  if known then return string.match(known, '^(%d%S*) ?(%S*)$') end
end

local function turn_span(turn) return span_of(part(turn)) end

-- The turn that answers a question; nil: none does.
local function answer_to(question)
  local known = redis.call('HGET', K_GROUPS, of_question(question))
  return known and string.match(known, '^>(.*)$')
end

-- A turn that begins at `id`; one that is known keeps its beginning.
local function note_turn(turn, id)
  redis.call('HSETNX', K_GROUPS, part(turn), id)
end

local function note_answer(question, turn)
  if question ~= '' then redis.call('HSET', K_GROUPS, of_question(question), '>' .. turn) end
end

-- A question that no turn answers yet.
local function note_question(question, id)
  redis.call('HSETNX', K_GROUPS, of_question(question), id .. ' ' .. id)
end

local function note_end(turn, id)
  redis.call('HSET', K_GROUPS, part(turn), (turn_span(turn) or id) .. ' ' .. id)
end

-- A turn that answers a question again: the question is kept for the newest answer. `parent`: what the turn hangs below,
-- which need not be a question.
local function note_other_answer(parent, turn)
  if parent ~= '' and redis.call('HEXISTS', K_GROUPS, of_question(parent)) == 1 then note_answer(parent, turn) end
end

-- Something was written at `id` to a turn, which may be of a worker or of any publisher. `question`: what it answers, or ''.
-- `parent`: what it hangs below, or ''.
local function note_activity(turn, id, question, parent)
  if redis.call('HEXISTS', K_ACTIVE, turn) == 1 then return note_turn(turn, id) end
  local first = turn_span(turn)
  if not first and question ~= '' then
    local other = answer_to(question)
    if other then first = turn_span(other) else first = span_of(of_question(question)) end
    if other or first then note_answer(question, turn) end
  end
  if not turn_span(turn) then note_other_answer(parent, turn) end
  redis.call('HSET', K_GROUPS, part(turn), (first or id) .. ' ' .. id)
end

-- Notes what a publish at `id` adds to: `count` triples of turn, the question it answers or '', what it hangs below or '', in
-- ARGV from `first` on. Turn '': the question waits for one.
local function note_written(id, first, count)
  for i = first, first + 3 * count - 3, 3 do
    local turn, question = ARGV[i], ARGV[i + 1]
    if turn ~= '' then
      note_activity(turn, id, question, ARGV[i + 2])
    else
      note_question(question, id)
    end
  end
end
