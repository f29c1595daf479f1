-- Turns that processes work on step by step and hand to each other, without a queue. Needs _turn.lua.

-- Takes a turn from a holder that gives it up or is lost: nothing of that one follows, and it may be adopted.
local function make_adoptable(turn, window_ms)
  local key = turn_key(turn)
  redis.call('DEL', fence_key(turn))
  close_open_messages(turn)
  local step = redis.call('HMGET', key, TURN.step_start, TURN.step_abandoned)
  if step[1] and step[1] ~= '' and step[2] then
    create(with_step_start(step[2], step[1]))
    redis.call('HSET', key, TURN.step_start, '', TURN.step_outcome, 'failed')
  end
  redis.call('HSET', key, TURN.worker, '', TURN.adoption_window, window_ms)
  redis.call('HDEL', key, TURN.held_by_request)
  redis.call('ZADD', LEASES, string.format('%.0f', now_ms() + tonumber(window_ms)), pair(turn, session))
end

-- What a holder has to know. Returns {'held', fence, attempt, epoch, input position, packed context, max attempts,
-- last step's id, its outcome, its start's serial, number of step ids}.
local function held(turn)
  local key = turn_key(turn)
  local fields = redis.call('HMGET', key, TURN.attempts, TURN.handed_back, TURN.input_position, TURN.context,
    TURN.max_attempts, TURN.step_id, TURN.step_outcome, TURN.step_serial, TURN.step_count)
  return {
    'held', tonumber(redis.call('GET', fence_key(turn))), tonumber(fields[1]) - tonumber(fields[2] or '0'),
    redis.call('HGET', K_META, SESSION.epoch), fields[3], fields[4], tonumber(fields[5]),
    fields[6] or '', fields[7] or '', fields[8] or '', tonumber(fields[9] or '0'),
  }
end

-- Makes a process the holder of a turn. Its steps are numbered anew.
local function hold(turn, holder, request, lease_ms, window_ms)
  local key = turn_key(turn)
  local fence = redis.call('HINCRBY', key, TURN.fence, 1)
  redis.call('HSET', key, TURN.status, 'active', TURN.worker, holder, TURN.held_by_request, request,
    TURN.adoption_window, window_ms, TURN.on_crash, 'fail', TURN.hook_grace, '', TURN.hook_default, '')
  redis.call('HDEL', key, TURN.write_sequence, TURN.write_reply)
  redis.call('SET', fence_key(turn), fence)
  redis.call('ZADD', LEASES, string.format('%.0f', now_ms() + tonumber(lease_ms)), pair(turn, session))
  redis.call('PERSIST', K_LOG)
  return held(turn)
end

-- Whether the request that asks is the one that made the present holder one: its answer was lost.
local function is_repeated(turn, request)
  local holds = redis.call('HGET', turn_key(turn), TURN.held_by_request)
  return redis.call('EXISTS', fence_key(turn)) == 1 and holds == request
end
