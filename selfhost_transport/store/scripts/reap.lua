-- Takes one turn from a worker that cannot continue: its lease expired, or it hands the turn back.
-- `named_turn`, `named_session`, `fence`: of a hand-back; '' for the first expired lease. `counted`: 1 if a hand-back counts
-- as an attempt (it failed), else 0.
-- An expired attempt counts; with attempts left the turn goes back to the queue, else it ends `error` and leaves a
-- dead letter. A hand-back counts only on request. A turn that was about to be cancelled is.
-- An attempt that was to be made alone and had not begun does not count.
-- If no sweep ran for longer than workers ever pause, Redis may have stood still: expired leases are then left
-- alone for `grace_ms`, so that workers that are well renew them first.
-- One whose hash Redis has evicted, or that is none any more, ends `error`: nothing is left to continue with.
-- A turn that is worked on step by step may be adopted for a while first; then it ends `error`.
-- Returns nil | {turn, session, 'retried' | 'failed' | 'cancelled' | 'adoptable'}.
--@keys leases
--@argv base named_turn named_session fence keep_ms:number window_ms:number counted grace_ms:number
--@include _names.lua
--@include _clock.lua
--@include _ours.lua
local turn, session = named_turn, named_session

local LONGEST_PAUSE_MS, NOTED_EVERY_MS = 2500, 500

local function stood_still(now, grace)
  if grace == 0 then return false end
  local swept = base .. 'swept'
  local known = call_if_ours('GET', swept)
  local seen, wait = string.match(known or '', '^(%d+) (%d+)$')
  seen, wait = tonumber(seen), tonumber(wait or '0')
  if seen and now - seen > LONGEST_PAUSE_MS then wait = now + grace end
  if not seen or now - seen > NOTED_EVERY_MS then
    redis.call('SET', swept, string.format('%.0f %.0f', now, wait), 'PX', 3600000)
  end
  return now < wait
end

if turn == '' then
  local now = now_ms()
  local due = string.format('%.0f', now)
  local expired = redis.call('ZRANGEBYSCORE', leases, '-inf', due, 'LIMIT', 0, 1)
  if redis.call('ZCARD', leases) > 0 and stood_still(now, grace_ms) then return nil end
  if not expired[1] then return nil end
  turn, session = split_pair(expired[1])
  redis.call('ZREM', leases, expired[1])
end
--@include _session.lua
--@include _turn.lua
--@include _adoption.lua
end_also_when_full()
local key = turn_key(turn)
local fields = call_if_ours('HMGET', key, TURN.status, TURN.attempts, TURN.max_attempts, TURN.on_crash, TURN.agent,
  TURN.worker, TURN.handed_back, TURN.adoption_window, TURN.alone) or {}
if not fields[1] and fence == '' and redis.call('HEXISTS', K_ACTIVE, turn) == 1 then
  tidy_after(close_turn(turn, 'failed', TURN.step_failed, TURN.run_lost, keep_ms), window_ms)
  return {turn, session, 'failed'}
end
if fields[1] ~= 'active' and fields[1] ~= 'cancelling' then return nil end
if fence ~= '' and redis.call('GET', fence_key(turn)) ~= fence then return nil end
if fence == '' then call_if_ours('HINCRBY', base .. 'stats', 'lease_losses', 1) end
if fields[1] == 'cancelling' then
  if redis.call('HEXISTS', key, TURN.cancel_position) == 0 then
    redis.call('HSET', key, TURN.cancel_position, redis.call('HGET', key, TURN.cancel_entry))
  end
  tidy_after(close_turn(turn, 'cancelled', TURN.step_cancelled, TURN.run_cancelled, keep_ms), window_ms)
  return {turn, session, 'cancelled'}
end
if fields[8] and redis.call('EXISTS', fence_key(turn)) == 1 then
  make_adoptable(turn, fields[8])
  return {turn, session, 'adoptable'}
end
local unused = fields[9] == 'waits'
local attempts = tonumber(fields[2]) - tonumber(fields[7] or '0')
local is_last = fields[4] == 'fail' or attempts >= tonumber(fields[3])
if fence == '' and not unused and is_last then
  call_if_ours('XADD', DEAD, 'MAXLEN', '~', 10000, '*', DEAD_LETTER.turn, turn, DEAD_LETTER.session, session,
    DEAD_LETTER.attempts, attempts, DEAD_LETTER.worker, fields[6])
  local id = close_turn(turn, 'failed', TURN.step_failed, TURN.run_lost, keep_ms)
  if_ours(queue_for_webhooks, turn, 'failed', id, 'dead')
  tidy_after(id, window_ms)
  return {turn, session, 'failed'}
end
redis.call('DEL', fence_key(turn))
redis.call('ZREM', LEASES, pair(turn, session))
-- An attempt that failed is over; where one was lost or given up, the next may continue in what it left open.
if fields[4] == 'continue' and (fence == '' or counted == '0') then
  redis.call('HSET', key, TURN.continues, '1')
else
  close_open_messages(turn)
end
if unused or (fence ~= '' and counted == '0') then redis.call('HINCRBY', key, TURN.handed_back, 1) end
if fence == '' then redis.call('HINCRBY', key, TURN.lost_workers, 1) end
redis.call('HSET', key, TURN.status, 'pending')
enqueue(turn, fields[5])
return {turn, session, 'retried'}
