-- Turns that processes work on step by step and hand to each other, without a queue. Needs _turn.lua.
-- Fields of such a turn's hash: dw, how long (ms) it may be without a holder; by, the request that made the present
-- holder one; si, sl, sx: id, start's serial and outcome of the last step; sn, the request that opened it; sd, what ends
-- it should its holder be lost; sk, number of step ids; S:<step id>, attempts at it.

-- Takes a turn from a holder that gives it up or is lost: nothing of that one follows, and it may be adopted.
local function make_adoptable(turn, window_ms)
  local key = turn_key(turn)
  redis.call('DEL', fence_key(turn))
  close_open_messages(turn)
  local step = redis.call('HMGET', key, 'sp', 'sd')
  if step[1] and step[1] ~= '' and step[2] then
    create(with_step_start(step[2], step[1]))
    redis.call('HSET', key, 'sp', '', 'sx', 'failed')
  end
  redis.call('HSET', key, 'wk', '', 'dw', window_ms)
  redis.call('HDEL', key, 'by')
  redis.call('ZADD', LEASES, string.format('%.0f', now_ms() + tonumber(window_ms)), pair(turn, session))
end

-- What a holder has to know. Returns {'held', fence, attempt, series, input position, packed context, max attempts,
-- last step's id, its outcome, its start's serial, number of step ids}.
local function held(turn)
  local key = turn_key(turn)
  local fields = redis.call('HMGET', key, 'at', 'hb', 'ip', 'tr', 'ma', 'si', 'sx', 'sl', 'sk')
  return {
    'held', tonumber(redis.call('GET', fence_key(turn))), tonumber(fields[1]) - tonumber(fields[2] or '0'),
    redis.call('HGET', K_META, 'series'), fields[3], fields[4], tonumber(fields[5]),
    fields[6] or '', fields[7] or '', fields[8] or '', tonumber(fields[9] or '0'),
  }
end

-- Makes a process the holder of a turn. Its steps are numbered anew.
local function hold(turn, holder, request, lease_ms, window_ms)
  local key = turn_key(turn)
  local fence = redis.call('HINCRBY', key, 'fn', 1)
  redis.call('HSET', key, 'st', 'active', 'wk', holder, 'by', request, 'dw', window_ms, 'oc', 'fail', 'hk', '', 'hd', '')
  redis.call('HDEL', key, 'sq', 'sr')
  redis.call('SET', fence_key(turn), fence)
  redis.call('ZADD', LEASES, string.format('%.0f', now_ms() + tonumber(lease_ms)), pair(turn, session))
  redis.call('PERSIST', K_LOG)
  return held(turn)
end

-- Whether the request that asks is the one that made the present holder one: its answer was lost.
local function is_repeated(turn, request)
  return redis.call('EXISTS', fence_key(turn)) == 1 and redis.call('HGET', turn_key(turn), 'by') == request
end
