-- Gives the next turn of an agent's queue to a worker: lease, fence, and the entries that open the attempt.
-- `spare`: 1 if the worker has room for another turn after this one, else 0.
-- `max_attempts`, `on_crash`: the agent's own, or '' for the send's; `hook_grace`: of its cancel hook in ms, '' without a
-- hook; `hook_default`: what an undecided hook means.
-- Returns nil | {turn, session, fence, attempt, step-start serial, epoch, input position, packed context, max attempts,
--   entry of the send ('' where its messages were changed since), number of turns left in the queue, 1 if it runs alone,
--   1 if the attempt continues in the messages that a lost one left open}.
-- Attempts that were handed back do not count. The last attempt at a turn whose worker was lost before is made alone:
-- until then it may have been another turn that ended the worker.
--@keys queue leases
--@argv base group worker lease_ms:number spare max_attempts on_crash hook_grace hook_default
--@include _names.lua
--@include _clock.lua
--@include _ours.lua
--@include _calling.lua
local agent = string.sub(queue, #base + 3)

local function next_turn()
  while true do
    local read = redis.pcall('XREADGROUP', 'GROUP', group, worker, 'COUNT', 1, 'NOACK', 'STREAMS', queue, '>')
    if read and read.err then
      redis.call('XGROUP', 'CREATE', queue, group, '0')
      read = redis.call('XREADGROUP', 'GROUP', group, worker, 'COUNT', 1, 'NOACK', 'STREAMS', queue, '>')
    end
    if not read then return nil end
    local item = read[1][2][1]
    redis.call('XDEL', queue, item[1])
    local turn, name = item[2][2], item[2][4]
    -- A turn that was cancelled while it waited has its terminal already.
    local status = call_if_ours('HGET', base .. 't:' .. part(turn) .. ':' .. name, TURN.status)
    if status == 'pending' then return turn, name, item[1] end
    if not status and redis.call('HEXISTS', base .. 'a:' .. name, turn) == 1 then
      -- Redis has evicted it, or it is no hash any more: the reaper ends it.
      redis.call('ZADD', leases, 0, pair(turn, name))
    end
  end
end

local turn, session, item
if redis.call('EXISTS', queue) == 1 then turn, session, item = next_turn() end
if not turn then
  if_ours(note_idle, base, agent, worker)
  return nil
end

-- From here on as any script of the session that was found.
--@include _session.lua
--@include _turn.lua
local key = turn_key(turn)

-- The publish that started the turn, which spares the worker reading the history for it.
local function unchanged_send(position)
  local found = redis.call('XRANGE', K_HISTORY, position, position)
  if not found[1] then return '' end
  local entry = found[1][2][2]
  local _, messages = string.gsub(string.sub(entry, 1, string.find(entry, '\n', 1, true)), ';', '')
  for index = 0, messages - 1 do
    if redis.call('EXISTS', of_message('m', position .. ':' .. index)) == 1 then return '' end
  end
  return entry
end

if_ours(note_take, agent, item)
local fields = redis.call('HMGET', key, TURN.run_start, TURN.step_opening, TURN.context, TURN.input_position,
  TURN.handed_back, TURN.max_attempts, TURN.resumes, TURN.fence, TURN.attempts, TURN.lost_workers, TURN.continues,
  TURN.step_start)
local fence, attempt = tonumber(fields[8]) + 1, tonumber(fields[9]) + 1
local epoch = redis.call('HGET', K_META, SESSION.epoch)
-- A new start would make every reader drop the text to be continued.
local continued = fields[11] and fields[12]
-- Returns the serial of the step's start.
local function open_attempt()
  if attempt == 1 or fields[7] then note_turn(turn, create(fields[1])) end
  return continued and fields[12] or item_serial(create(fields[2]), epoch)
end
local step_start = if_ours(open_attempt)
if not step_start then
  -- A key of the session holds something else. It counts as an attempt that was lost: the reaper ends the turn after the last.
  redis.call('HSET', key, TURN.attempts, attempt, TURN.status, 'active', TURN.worker, worker)
  leave_to_reaper(turn)
  return nil
end
local changed = {
  TURN.fence, fence, TURN.attempts, attempt, TURN.status, 'active', TURN.worker, worker, TURN.step_start, step_start,
  TURN.hook_grace, hook_grace, TURN.hook_default, hook_default,
}
if max_attempts ~= '' then
  changed[#changed + 1] = TURN.max_attempts
  changed[#changed + 1] = max_attempts
end
if on_crash ~= '' then
  changed[#changed + 1] = TURN.on_crash
  changed[#changed + 1] = on_crash
end
redis.call('HSET', key, unpack(changed))
redis.call('HDEL', key, TURN.write_sequence, TURN.write_reply, TURN.resumes, TURN.adoption_window, TURN.alone, TURN.continues)
redis.call('SET', fence_key(turn), fence)
redis.call('ZADD', LEASES, string.format('%.0f', now_ms() + lease_ms), pair(turn, session))
redis.call('PERSIST', K_LOG)
local counted = attempt - tonumber(fields[5] or '0')
local limit = max_attempts ~= '' and max_attempts or fields[6]
local alone = fields[10] and counted >= tonumber(limit)
if alone then redis.call('HSET', key, TURN.alone, 'waits') end
local left = redis.call('XLEN', queue)
if left == 0 and spare == '1' then if_ours(note_idle, base, agent, worker) end
return {turn, session, fence, counted, step_start, epoch, fields[4], fields[3], limit, unchanged_send(fields[4]),
  left, alone and 1 or 0, continued and 1 or 0}
