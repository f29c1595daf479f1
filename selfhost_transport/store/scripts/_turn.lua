-- The life of a turn. A turn's hash holds packed entries that only need a position: the writer that opens a turn or a
-- message leaves there what closes it, so that a script can end a turn with no worker alive.
--@include _ours.lua
--@include _calling.lua
--@include _plain.lua
local LEASES, DEAD = base .. 'leases', base .. 'dead'
-- Turns that something has to happen to at a time: a cancel whose hook is asked, a suspension with a limit.
local DEADLINES = base .. 'deadlines'
local STEP_START_PLACEHOLDER = '00000000000000-000@stepstart0:000'

-- What the sender of a turn leaves there, and the answerer of a suspended one for its next invocation (`TURN.next` before each).
local CLOSING = {
  TURN.run_start, TURN.step_opening, TURN.step_cancelled, TURN.step_failed, TURN.run_cancelled, TURN.run_lost,
  TURN.run_merged, TURN.context,
}

-- The session's turns without a terminal, by the position of their input. A script closes few of them at once: the others
-- are marked, so that nothing of them can follow, and are closed by close_cancelled.lua, or by expire.lua in the end.
local K_OPEN = base .. 'open:' .. session
local CLOSED_AT_ONCE, CLOSED_WITHIN_MS = 8, 2000

-- Ending a turn must be possible in a full Redis. Redis refuses writes for lack of memory only as the first write of a
-- script, so that none stops half-way; a removal is never refused.
local function end_also_when_full() redis.call('DEL', base .. 'none') end

local function turn_key(turn) return of_session('t', turn) end
-- A turn of the session that has no hash any more: the reaper ends it.
local function leave_to_reaper(turn) redis.call('ZADD', LEASES, 0, pair(turn, session)) end
local function fence_key(turn) return of_session('f', turn) end
-- Of a cancel that came before its turn: what it names the turn by, `turn` or `input`, and the value.
local function early_key(filter, value) return of_session('c', pair(filter, value)) end

-- Puts the serial of the attempt's step-start into a closing entry; both have the same length.
local function with_step_start(entry, serial)
  local from, to = string.find(entry, STEP_START_PLACEHOLDER, 1, true)
  while from do
    entry = string.sub(entry, 1, from - 1) .. serial .. string.sub(entry, to + 1)
    from, to = string.find(entry, STEP_START_PLACEHOLDER, to, true)
  end
  return entry
end

local function item_serial(id, epoch)
  local ms, counter = split_id(id)
  return string.format('%014.0f-%03d@%s:000', ms, counter, epoch)
end

-- `field`: of the turn's hash, with the append that was stored when the message was opened.
local function close_message(turn, field)
  local ref = string.sub(field, 3)
  local extras_length, rest = string.match(redis.call('HGET', turn_key(turn), field), '^(%d+) (.*)$')
  local extras = string.sub(rest, 1, tonumber(extras_length))
  local id = emit('A' .. ref .. '\n' .. string.sub(rest, tonumber(extras_length) + 1))
  redis.call('HDEL', turn_key(turn), field)
  redis.call('HSET', of_message('m', ref), MESSAGE.extras, extras, MESSAGE.version, id, MESSAGE.action, 'A')
  shrink_text(ref)
end

-- Closes the messages a turn left open, as cancelled.
local function close_open_messages(turn)
  -- Only the names: the hash holds all closing messages, and most turns have nothing open here.
  for _, field in ipairs(call_if_ours('HKEYS', turn_key(turn)) or {}) do
    if string.sub(field, 1, 2) == TURN.open_message then if_ours(close_message, turn, field) end
  end
end

local function set_deadline(turn, after_ms)
  redis.call('ZADD', DEADLINES, string.format('%.0f', now_ms() + after_ms), pair(turn, session))
end

local function enqueue(turn, agent)
  -- The item is remembered for a process that starts the turn by its id (claim.lua).
  local item = redis.call('XADD', base .. 'q:' .. agent, '*', QUEUE.turn, turn, QUEUE.session, session)
  redis.call('HSET', turn_key(turn), TURN.queue_item, item)
  if_ours(call_workers, base, agent)
  -- For processes that want to see every turn, and take none from the queue. Else the channel of all has said it.
  if COUNTS_ALL then redis.call('PUBLISH', base .. 'came:' .. part(agent) .. DATABASE, item) end
end

-- How fast an agent's turns are taken from the bucket's queue while turns wait in it: a decayed count of takes (n), the time
-- that they needed (ms, decayed likewise), as of the last one (at). Time in which nothing waited says nothing of the pace.
local PACE_MS, FORGOTTEN_MS, FEWEST_TAKES, FEWEST_WAITING, SILENT_MS = 5000, 60000, 5, 2, 1000

local function pace_key(agent) return base .. 'pace:' .. agent end

-- `item`: the entry of the queue that was taken.
local function note_take(agent, item)
  local key, now = pace_key(agent), now_ms()
  local pace = redis.call('HMGET', key, PACE.takes, PACE.needed, PACE.noted)
  local count, ms, waited_since = 0, 0, split_id(item)
  if pace[1] and pace[2] then
    local kept = math.exp((tonumber(pace[3]) - now) / PACE_MS)
    count, ms = tonumber(pace[1]) * kept, tonumber(pace[2]) * kept
    waited_since = math.max(waited_since, tonumber(pace[3]))
  end
  -- A longer silence is that of no worker.
  local needed = now - waited_since
  if needed > 0 and needed <= PACE_MS then ms = ms + needed end
  redis.call('HSET', key, PACE.takes, string.format('%.4f', count + 1), PACE.needed, string.format('%.4f', ms),
    PACE.noted, string.format('%.0f', now))
  redis.call('PEXPIRE', key, FORGOTTEN_MS)
end

-- Whether one more turn would wait too long in an agent's queue, at the pace of its workers. Nothing is said where few
-- turns are taken, or none at the moment: those wait. Returns nil, or after how many ms to try again.
local function too_long(agent, waiting, wait_ms)
  if wait_ms == 0 or waiting < FEWEST_WAITING then return nil end
  local pace = redis.call('HMGET', pace_key(agent), PACE.takes, PACE.needed, PACE.noted)
  if not (pace[1] and pace[2]) then return nil end
  local silent = now_ms() - tonumber(pace[3])
  local taken = tonumber(pace[1])
  if taken * math.exp(-silent / PACE_MS) < FEWEST_TAKES or silent > SILENT_MS then return nil end
  local wait = waiting * tonumber(pace[2]) / taken
  if wait <= wait_ms then return nil end
  return math.ceil(math.max(100, wait - wait_ms))
end

-- Turns of the session that keep an agent busy: neither waiting nor suspended.
local function running_turns()
  local suspended = tonumber(redis.call('HGET', K_META, SESSION.suspended) or '0')
  return redis.call('HLEN', K_ACTIVE) - redis.call('LLEN', base .. 'w:' .. session) - suspended
end

-- Starts turns that waited, oldest first, while fewer run than the first of them tolerates (`TURN.tolerated`).
local function start_waiting()
  local waiting = base .. 'w:' .. session
  while true do
    local turn = redis.call('LINDEX', waiting, 0)
    if not turn then return end
    local running = running_turns()
    local fields = redis.call('HMGET', turn_key(turn), TURN.tolerated, TURN.agent)
    if fields[1] and running >= tonumber(fields[1]) then return end
    redis.call('LPOP', waiting)
    if fields[1] then
      redis.call('HSET', turn_key(turn), TURN.status, 'pending')
      enqueue(turn, fields[2])
    else
      leave_to_reaper(turn)
    end
  end
end

-- A position as a number that is exact and has its order.
local function score_of(id)
  local ms, counter = split_id(id)
  return string.format('%.0f', ms * 1000 + math.min(counter, 999))
end

-- Turns that were opened before there was this index are brought into it.
local function index_open_turns()
  if redis.call('ZCARD', K_OPEN) >= redis.call('HLEN', K_ACTIVE) then return end
  for _, turn in ipairs(redis.call('HKEYS', K_ACTIVE)) do
    local input = redis.call('HGET', turn_key(turn), TURN.input_position)
    redis.call('ZADD', K_OPEN, input and score_of(input) or '0', turn)
  end
end

-- Up to where the session consists of ended turns alone, once `turn` has ended: before the first input still worked on.
local function first_open_input(turn, terminal)
  index_open_turns()
  for _, other in ipairs(redis.call('ZRANGE', K_OPEN, 0, 1)) do
    local input = other ~= turn and redis.call('HGET', turn_key(other), TURN.input_position)
    if input then
      local ms, counter = split_id(input)
      local last_ms, last_counter = split_id(terminal)
      if ms < last_ms or (ms == last_ms and counter < last_counter) then return input end
      return terminal
    end
  end
  return terminal
end

-- Queues a turn that ended for every exporter; with an `event` (suspended, escalated, dead) for webhooks and pushes only. Each
-- has a stream of its own, out of which it takes what it has dealt with; beyond its limit the oldest go, and are counted.
local function queue_for_exporters(turn, status, terminal, fields, event)
  local exporters = redis.call('HGETALL', base .. 'exporters')
  local open = exporters[1] and first_open_input(turn, terminal)
  for i = 1, #exporters, 2 do
    local name, stream = exporters[i], base .. 'ended:' .. exporters[i]
    if not event or string.sub(name, 1, 8) == 'webhook.' or string.sub(name, 1, 5) == 'push.' then
      local before = redis.call('XLEN', stream)
      redis.call('XADD', stream, 'MAXLEN', exporters[i + 1], '*', ENDED.turn, turn, ENDED.session, session, ENDED.status, status,
        ENDED.agent, fields[3] or '', ENDED.owner, fields[4] or '', ENDED.first, fields[2] or terminal,
        ENDED.last, terminal, ENDED.open, open, ENDED.epoch, redis.call('HGET', K_META, SESSION.epoch) or '',
        ENDED.event, event or 'ended')
      local dropped = before + 1 - redis.call('XLEN', stream)
      if dropped > 0 then redis.call('HINCRBY', base .. 'dropped', name, dropped) end
      redis.call('PUBLISH', base .. 'ended:' .. part(name) .. DATABASE, '')
    end
  end
end

-- Queues something else that happened to a turn, for webhooks and pushes.
local function queue_for_webhooks(turn, status, position, event)
  local fields = redis.call('HMGET', turn_key(turn), TURN.status, TURN.input_position, TURN.agent, TURN.owner)
  queue_for_exporters(turn, status, position, fields, event)
end

-- Counts the session's suspended turns anew: Redis has evicted what said whether this one was.
local function count_suspended(turn)
  local count = 0
  for _, other in ipairs(redis.call('HKEYS', K_ACTIVE)) do
    if other ~= turn and redis.call('HGET', turn_key(other), TURN.status) == 'suspended' then count = count + 1 end
  end
  if redis.call('HEXISTS', K_META, SESSION.suspended) == 1 then redis.call('HSET', K_META, SESSION.suspended, count) end
end

-- Takes a turn out of what it waits in: for people, in its session, or for a worker.
local function stop_waiting(turn, was, agent, item)
  if was == 'suspended' then redis.call('HINCRBY', K_META, SESSION.suspended, -1) end
  if not was then count_suspended(turn) end
  if was == 'queued' then redis.call('LREM', base .. 'w:' .. session, 1, turn) end
  if was == 'pending' and item then redis.call('XDEL', base .. 'q:' .. agent, item) end
end

-- The one place where a turn gets its terminal state (P3). `terminal` is the position of its last entry.
local function finish(turn, status, terminal, keep_ms)
  local key = turn_key(turn)
  local fields = call_if_ours('HMGET', key, TURN.status, TURN.input_position, TURN.agent, TURN.owner, TURN.queue_item) or {}
  local was = fields[1]
  if_ours(queue_for_exporters, turn, status, terminal, fields)
  call_if_ours('HSET', key, TURN.status, status, TURN.terminal_position, terminal)
  if_ours(note_end, turn, terminal)
  call_if_ours('HINCRBY', base .. 'stats', status, 1)
  call_if_ours('HDEL', key, TURN.write_sequence, TURN.write_reply, TURN.awaited, unpack(CLOSING))
  redis.call('DEL', fence_key(turn), of_session('y', turn))
  call_if_ours('ZREM', LEASES, pair(turn, session))
  call_if_ours('ZREM', DEADLINES, pair(turn, session))
  if_ours(stop_waiting, turn, was, fields[3], fields[5])
  call_if_ours('HDEL', K_ACTIVE, turn)
  call_if_ours('ZREM', K_OPEN, turn)
  redis.call('PEXPIRE', key, keep_ms)
  if_ours(start_waiting)
end

-- Trims the log after what ended a turn.
local function tidy_after(id, window_ms) if_ours(tidy_log, id, window_ms) end

-- The session's newest position, for an ending of which nothing could be written.
local function head_if_ours() return call_if_ours('GET', K_HEAD) or '0-0' end

-- Ends a turn from outside its worker: closes its messages, its step and itself. `step`, `run`: fields that
-- hold the closing entries. A turn that never started is opened first, one without a hash is only ended. Returns the
-- terminal's position.
local function close_turn(turn, status, step, run, keep_ms)
  local turn_fields = call_if_ours('HMGET', turn_key(turn), TURN.run_start, TURN.attempts, TURN.step_start, step, run,
    TURN.fence, TURN.worker) or {}
  redis.call('DEL', fence_key(turn))
  close_open_messages(turn)
  if turn_fields[2] == '0' then
    local began = if_ours(create, turn_fields[1])
    if began then if_ours(note_turn, turn, began) end
  end
  if turn_fields[3] and turn_fields[3] ~= '' then if_ours(create, with_step_start(turn_fields[4], turn_fields[3])) end
  local last = turn_fields[5] or plain_end(turn, call_if_ours('HGET', K_ACTIVE, turn) or '', status)
  local id = if_ours(create, last) or head_if_ours()
  finish(turn, status, id, keep_ms)
  if turn_fields[7] then
    notify_worker(base, turn_fields[7], 'stop ' .. pair(turn_fields[7], pair(turn, turn_fields[6])))
  end
  return id
end

-- A turn that is cancelled from here on, though it is closed only later: nothing can be written for it any more (P2).
local function mark_cancelled(turn, id, was, worker, fence, agent, item)
  redis.call('HSET', turn_key(turn), TURN.status, 'cancelling', TURN.cancel_position, id, TURN.cancel_marked, '1')
  stop_waiting(turn, was, agent, item)
  if worker and (was == 'active' or was == 'cancelling') then
    redis.call('DEL', fence_key(turn))
    redis.call('ZREM', LEASES, pair(turn, session))
    notify_worker(base, worker, 'stop ' .. pair(worker, pair(turn, fence)))
  end
  set_deadline(turn, CLOSED_WITHIN_MS)
end

-- Whether a turn is cancelled already, and must only be closed.
local function is_cancelled(turn) return redis.call('HEXISTS', turn_key(turn), TURN.cancel_marked) == 1 end

-- A turn whose agent has a cancel hook is asked for: it continues until the hook decides or its grace is over.
local function ask_to_cancel(turn, id, requester)
  local fields = redis.call('HMGET', turn_key(turn), TURN.hook_grace, TURN.worker, TURN.fence)
  redis.call('HSET', turn_key(turn), TURN.status, 'cancelling', TURN.cancel_requester, requester, TURN.cancel_entry, id)
  set_deadline(turn, tonumber(fields[1]))
  notify_worker(base, fields[2], 'ask ' .. pair(fields[2], pair(turn, fields[3])))
end

-- Cancels turns with one cancel entry before all that it causes. Returns its position, or nil without turns; the turns
-- whose hook is asked; and those that are marked and must be closed. `id`: the entry, if there is one already.
local function cancel_turns(turns, cancel_entry, keep_ms, requester, force, id)
  if #turns == 0 then return id, {}, {} end
  id = id or if_ours(create, cancel_entry) or head_if_ours()
  local asked, marked, closed = {}, {}, 0
  for _, turn in ipairs(turns) do
    local fields = call_if_ours('HMGET', turn_key(turn), TURN.status, TURN.hook_grace, TURN.worker, TURN.fence, TURN.agent,
      TURN.queue_item, TURN.cancel_marked) or {}
    if fields[7] then
      -- Another cancel came first; it must only be closed.
      marked[#marked + 1] = turn
    elseif fields[2] and fields[2] ~= '' and not force and fields[1] == 'active' then
      ask_to_cancel(turn, id, requester)
      asked[#asked + 1] = turn
    elseif not force and fields[1] == 'cancelling' then
      asked[#asked + 1] = turn
    elseif closed < CLOSED_AT_ONCE then
      closed = closed + 1
      call_if_ours('HSET', turn_key(turn), TURN.cancel_position, id)
      close_turn(turn, 'cancelled', TURN.step_cancelled, TURN.run_cancelled, keep_ms)
    else
      mark_cancelled(turn, id, fields[1], fields[3], fields[4], fields[5], fields[6])
      marked[#marked + 1] = turn
    end
  end
  return id, asked, marked
end

-- Puts a suspended turn back to work: its next invocation is opened by the worker that takes it.
local function resume(turn)
  local key = turn_key(turn)
  for _, name in ipairs(CLOSING) do
    local value = redis.call('HGET', key, TURN.next .. name)
    if value then
      redis.call('HSET', key, name, value)
      redis.call('HDEL', key, TURN.next .. name)
    end
  end
  redis.call('HSET', key, TURN.status, 'pending', TURN.resumes, '1', TURN.handed_back, redis.call('HGET', key, TURN.attempts))
  redis.call('HDEL', key, TURN.awaited)
  redis.call('ZREM', DEADLINES, pair(turn, session))
  redis.call('HINCRBY', K_META, SESSION.suspended, -1)
  enqueue(turn, redis.call('HGET', key, TURN.agent))
end

-- Whether every call a suspended turn waits for has its answer.
local function all_answered(turn)
  local awaited = redis.call('HGET', turn_key(turn), TURN.awaited)
  if not awaited then return false end
  for _, call in ipairs(cjson.decode(awaited)) do
    if redis.call('HEXISTS', turn_key(turn), TURN.answer .. call) == 0 then return false end
  end
  return true
end

local function is_match(turn, filter, value)
  if filter == 'all' then return true end
  if filter == 'owner' then return redis.call('HGET', K_ACTIVE, turn) == value end
  if filter == 'input' then return redis.call('HGET', turn_key(turn), TURN.input) == value end
  return filter == 'connection' and redis.call('HGET', turn_key(turn), TURN.connection) == value
end

-- Of the session's open turns after `cursor` (a score, '' = all) and up to `last` some that a filter matches: turn (id),
-- input (codec message id), owner (client id), connection (id of the sender's), all. As many as one script may look at, and
-- cancel. Returns them, and the cursor to continue from, or ''.
local LOOKED_AT, MATCHED = 500, 32
local function matching(filter, value, cursor, last)
  if filter == 'turn' then return redis.call('HEXISTS', K_ACTIVE, value) == 1 and {value} or {}, '' end
  index_open_turns()
  local from, found = cursor == '' and '-inf' or '(' .. cursor, {}
  local open = redis.call('ZRANGEBYSCORE', K_OPEN, from, last, 'LIMIT', 0, LOOKED_AT)
  for i, turn in ipairs(open) do
    if is_match(turn, filter, value) then found[#found + 1] = turn end
    -- Two inputs never have the same position.
    if #found == MATCHED or i == LOOKED_AT then return found, redis.call('ZSCORE', K_OPEN, turn) end
  end
  return found, ''
end

-- Adds lists to a reply; `unpack` has a limit.
local function extend(reply, ...)
  for _, list in ipairs({...}) do
    for _, item in ipairs(list) do reply[#reply + 1] = item end
  end
  return reply
end
