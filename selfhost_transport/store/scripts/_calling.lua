-- Who hears of what happens to a turn. Names are of the bucket `at`; needs _names.lua and _clock.lua.
--
-- A worker that finds an agent's queue empty is noted in `idle:<agent>`. A turn that comes to wait calls the two that have
-- waited longest, by their own channels: two, so that one that is busy or frozen keeps no turn waiting. A worker that has
-- gone is passed over, since no one hears it. Where none is noted all are called, once: until one of them finds the queue
-- empty again, all of them mean to look into it already.
-- COUNTED (redis_io/databases.py): whether the reply to PUBLISH counts all who hear. MOST_IDLE bounds what a bucket keeps for a large
-- fleet; IDLE_MS, how long workers that are gone are remembered; CALLED_MS, how long a call of all is relied on.
local CALLED_AT_ONCE, MOST_IDLE, IDLE_MS, CALLED_MS = 2, 128, 3600000, 5000

-- To one worker: returns how many heard it.
local function tell_alone(at, worker, message)
  return redis.call('PUBLISH', at .. 'ctl:' .. part(worker) .. DATABASE, message)
end

local function tell_all(at, message) redis.call('PUBLISH', at .. 'ctl' .. DATABASE, message) end

-- To one worker, by the channel of all where it does not listen to its own.
local function tell(at, worker, message)
  if not COUNTED or tell_alone(at, worker, message) == 0 then tell_all(at, message) end
end

local function call_workers(at, agent)
  local idle, message, heard = at .. 'idle:' .. agent, 'wake ' .. part(agent), 0
  while COUNTED and heard < CALLED_AT_ONCE do
    local worker = redis.call('ZRANGE', idle, 0, 0)[1]
    if not worker then break end
    redis.call('ZREM', idle, worker)
    heard = heard + tell_alone(at, worker, message)
  end
  if heard > 0 then return end
  if not COUNTED or redis.call('SET', at .. 'called:' .. agent, '1', 'NX', 'PX', CALLED_MS) then tell_all(at, message) end
end

-- A worker has found the queue empty, and has room for a turn.
local function note_idle(at, agent, worker)
  if not COUNTED then return end
  local idle = at .. 'idle:' .. agent
  -- A removal first: a full Redis then lets the script write.
  redis.call('DEL', at .. 'called:' .. agent)
  if redis.call('ZCARD', idle) >= MOST_IDLE and not redis.call('ZSCORE', idle, worker) then return end
  redis.call('ZADD', idle, string.format('%.0f', now_ms()), worker)
  redis.call('PEXPIRE', idle, IDLE_MS)
end
