-- Takes one turn from a worker that cannot continue: its lease expired, or it hands the turn back.
-- KEYS: leases. ARGV: base, turn and session ('' for the first expired one), fence (hand-back) or '', keep ms, window ms,
--   1 if a hand-back counts as an attempt (it failed), else 0, grace ms
-- An expired attempt counts; with attempts left the turn goes back to the queue, else it ends `error` and leaves a
-- dead letter. A hand-back counts only on request. A turn that was about to be cancelled is.
-- An attempt that was to be made alone and had not begun does not count.
-- If no sweep ran for longer than workers ever pause, Redis may have stood still: expired leases are then left
-- alone for the grace, so that workers that are well renew them first.
-- A turn that is worked on step by step may be adopted for a while first; then it ends `error`.
-- Returns nil | {turn, session, 'retried' | 'failed' | 'cancelled' | 'adoptable'}.
--@include _names.lua
local bucket, fence = ARGV[1], ARGV[4]
local turn, name = ARGV[2], ARGV[3]

local LONGEST_PAUSE_MS, NOTED_EVERY_MS = 2500, 500

local function stood_still(now, grace)
  if grace == 0 then return false end
  local swept = bucket .. 'swept'
  local known = redis.call('GET', swept)
  local seen, wait = string.match(known or '', '^(%d+) (%d+)$')
  seen, wait = tonumber(seen), tonumber(wait or '0')
  if seen and now - seen > LONGEST_PAUSE_MS then wait = now + grace end
  if not seen or now - seen > NOTED_EVERY_MS then
    redis.call('SET', swept, string.format('%.0f %.0f', now, wait), 'PX', 3600000)
  end
  return now < wait
end

if turn == '' then
  local now = redis.call('TIME')
  local due = string.format('%.0f', tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000))
  local expired = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', due, 'LIMIT', 0, 1)
  if redis.call('ZCARD', KEYS[1]) > 0 and stood_still(tonumber(due), tonumber(ARGV[8])) then return nil end
  if not expired[1] then return nil end
  turn, name = split_pair(expired[1])
  redis.call('ZREM', KEYS[1], expired[1])
end
local keep_ms = tonumber(ARGV[5])
KEYS[1], ARGV[2] = bucket .. 's:' .. name, name
--@include _session.lua
--@include _turn.lua
--@include _adoption.lua
end_also_when_full()
local key = turn_key(turn)
local fields = redis.call('HMGET', key, 'st', 'at', 'ma', 'oc', 'ag', 'wk', 'hb', 'dw', 'ap')
if fields[1] ~= 'active' and fields[1] ~= 'cancelling' then return nil end
if fence ~= '' and redis.call('GET', fence_key(turn)) ~= fence then return nil end
if fence == '' then redis.call('HINCRBY', base .. 'stats', 'lease_losses', 1) end
if fields[1] == 'cancelling' then
  if redis.call('HEXISTS', key, 'cp') == 0 then redis.call('HSET', key, 'cp', redis.call('HGET', key, 'ce')) end
  tidy_log(close_turn(turn, 'cancelled', 'sc', 'rc', keep_ms), tonumber(ARGV[6]))
  return {turn, session, 'cancelled'}
end
if fields[8] and redis.call('EXISTS', fence_key(turn)) == 1 then
  make_adoptable(turn, fields[8])
  return {turn, session, 'adoptable'}
end
local unused = fields[9] == 'waits'
if fence == '' and not unused and (fields[4] == 'fail' or tonumber(fields[2]) - tonumber(fields[7] or '0') >= tonumber(fields[3])) then
  redis.call('XADD', DEAD, 'MAXLEN', '~', 10000, '*', 't', turn, 's', session, 'at', fields[2], 'wk', fields[6])
  tidy_log(close_turn(turn, 'failed', 'sf', 're', keep_ms), tonumber(ARGV[6]))
  return {turn, session, 'failed'}
end
redis.call('DEL', fence_key(turn))
redis.call('ZREM', LEASES, pair(turn, session))
-- An attempt that failed is over; where one was lost or given up, the next may continue in what it left open.
if fields[4] == 'continue' and (fence == '' or ARGV[7] == '0') then
  redis.call('HSET', key, 'co', '1')
else
  close_open_messages(turn)
end
if unused or (fence ~= '' and ARGV[7] == '0') then redis.call('HINCRBY', key, 'hb', 1) end
if fence == '' then redis.call('HINCRBY', key, 'lw', 1) end
redis.call('HSET', key, 'st', 'pending')
enqueue(turn, fields[5])
return {turn, session, 'retried'}
