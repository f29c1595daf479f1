-- The life of a turn. A turn's hash holds packed entries that only need a position: whoever opens a turn or a
-- message deposits what closes it, so that a script can end a turn with no worker alive.
local LEASES, DEAD, CONTROL = base .. 'leases', base .. 'dead', base .. 'ctl'
local STEP_START_PLACEHOLDER = '00000000000000-000@stepstart0:000'

local function turn_key(turn) return of_session('t', turn) end
local function fence_key(turn) return of_session('f', turn) end

-- Puts the serial of the attempt's step-start into a deposited entry; both have the same length.
local function with_step_start(entry, serial)
  local from, to = string.find(entry, STEP_START_PLACEHOLDER, 1, true)
  if not from then return entry end
  return string.sub(entry, 1, from - 1) .. serial .. string.sub(entry, to + 1)
end

local function item_serial(id, series)
  local ms, counter = split_id(id)
  return string.format('%014.0f-%03d@%s:000', ms, counter, series)
end

-- Closes the messages a turn left open, as cancelled, with the appends deposited when they were opened.
local function close_open_messages(turn)
  local fields = redis.call('HGETALL', turn_key(turn))
  for at = 1, #fields, 2 do
    local ref = string.match(fields[at], '^o:(.+)$')
    if ref then
      local extras_length, rest = string.match(fields[at + 1], '^(%d+) (.*)$')
      local extras = string.sub(rest, 1, tonumber(extras_length))
      local id = emit('A' .. ref .. '\n' .. string.sub(rest, tonumber(extras_length) + 1))
      redis.call('HSET', of_session('m', ref), 'x', extras, 'v', id, 'a', 'A')
      redis.call('HDEL', turn_key(turn), fields[at])
    end
  end
end

local function enqueue(turn, agent)
  redis.call('XADD', base .. 'q:' .. agent, '*', 't', turn, 's', session)
  redis.call('PUBLISH', CONTROL, 'wake ' .. agent)
end

-- Starts turns that waited, oldest first, while fewer run than the first of them tolerates (`qm`).
local function start_waiting()
  local waiting = base .. 'w:' .. session
  while true do
    local turn = redis.call('LINDEX', waiting, 0)
    if not turn then return end
    local running = redis.call('HLEN', K_ACTIVE) - redis.call('LLEN', waiting)
    local fields = redis.call('HMGET', turn_key(turn), 'qm', 'ag')
    if running >= tonumber(fields[1]) then return end
    redis.call('LPOP', waiting)
    redis.call('HSET', turn_key(turn), 'st', 'pending')
    enqueue(turn, fields[2])
  end
end

-- The one place where a turn gets its terminal state (P3). `terminal` is the position of its last entry.
local function finish(turn, status, terminal, keep_ms)
  local key = turn_key(turn)
  local was = redis.call('HGET', key, 'st')
  redis.call('HSET', key, 'st', status, 'tp', terminal)
  redis.call('HDEL', key, 'rs', 'ss', 'sc', 'sf', 'rc', 're', 'rl', 'tr', 'sq', 'sr')
  redis.call('DEL', fence_key(turn))
  redis.call('ZREM', LEASES, turn .. ' ' .. session)
  redis.call('HDEL', K_ACTIVE, turn)
  redis.call('PEXPIRE', key, keep_ms)
  if was == 'queued' then redis.call('LREM', base .. 'w:' .. session, 1, turn) end
  start_waiting()
end

-- Ends a turn from outside its worker: closes its messages, its step and itself. `step`, `run`: fields that
-- hold the deposited closing entries. Returns the position of the terminal.
local function close_turn(turn, status, step, run, keep_ms)
  local key = turn_key(turn)
  local turn_fields = redis.call('HMGET', key, 'rs', 'at', 'sp', step, run, 'fn', 'wk')
  redis.call('DEL', fence_key(turn))
  close_open_messages(turn)
  if turn_fields[2] == '0' then note_group(turn, create(turn_fields[1])) end
  if turn_fields[3] then create(with_step_start(turn_fields[4], turn_fields[3])) end
  local id = create(turn_fields[5])
  finish(turn, status, id, keep_ms)
  if turn_fields[7] then
    redis.call('PUBLISH', CONTROL, 'stop ' .. turn_fields[7] .. ' ' .. turn .. ' ' .. turn_fields[6])
  end
  return id
end

-- Cancels turns with one cancel entry before all that it causes. Returns its position, or nil without turns.
local function cancel_turns(turns, cancel_entry, keep_ms)
  if #turns == 0 then return nil end
  local id = create(cancel_entry)
  for _, turn in ipairs(turns) do
    redis.call('HSET', turn_key(turn), 'cp', id)
    close_turn(turn, 'cancelled', 'sc', 'rc', keep_ms)
  end
  return id
end

-- The session's open turns that a filter matches: turn (id), input (codec message id), owner (client id), all.
local function matching(filter, value)
  local found, open = {}, redis.call('HGETALL', K_ACTIVE)
  for at = 1, #open, 2 do
    local turn, owner = open[at], open[at + 1]
    local matches = filter == 'all' or (filter == 'turn' and turn == value) or (filter == 'owner' and owner == value)
    if filter == 'input' then matches = redis.call('HGET', turn_key(turn), 'in') == value end
    if matches then found[#found + 1] = turn end
  end
  table.sort(found)
  return found
end
