-- Who hears of what happens to a turn. Names are built from `base`, what every key of a bucket starts
-- with; needs _names.lua and _clock.lua.
--
-- To call is to publish `wake <agent>`. A worker that finds an agent's queue empty is noted in `idle:<agent>`. A turn that comes to wait calls the two that have
-- waited longest, by their own channels: two, so that one that is busy or frozen keeps no turn waiting. A worker that has
-- gone is passed over, since no one hears it. Where none is noted all are called, once: until one of them finds the queue
-- empty again, all of them mean to look into it already.
-- COUNTS_ALL (redis_io/databases.py): whether the reply to PUBLISH counts all who hear. MOST_IDLE bounds what a bucket keeps
-- for a large fleet; IDLE_MS, how long workers that are gone are remembered; CALLED_MS, how long a call of all is relied on.
local CALLED_AT_ONCE, MOST_IDLE, IDLE_MS, CALLED_MS = 2, 128, 3600000, 5000

-- To one worker: returns how many heard it.
local function publish_to_worker(base, worker, message)
  return redis.call('PUBLISH', base .. 'ctl:' .. part(worker) .. DATABASE, message)
end

local function publish_to_all(base, message) redis.call('PUBLISH', base .. 'ctl' .. DATABASE, message) end

-- To one worker, by the channel of all where it does not listen to its own.
local function notify_worker(base, worker, message)
  if not COUNTS_ALL or publish_to_worker(base, worker, message) == 0 then publish_to_all(base, message) end
end

local function call_workers(base, agent)
  local idle, message, heard = base .. 'idle:' .. agent, 'wake ' .. part(agent), 0
  while COUNTS_ALL and heard < CALLED_AT_ONCE do
    local worker = redis.call('ZRANGE', idle, 0, 0)[1]
    if not worker then break end
    redis.call('ZREM', idle, worker)
    heard = heard + publish_to_worker(base, worker, message)
  end
  if heard > 0 then return end
  if COUNTS_ALL and not redis.call('SET', base .. 'called:' .. agent, '1', 'NX', 'PX', CALLED_MS) then return end
  publish_to_all(base, message)
end

-- A worker has found the queue empty, and has room for a turn.
local function note_idle(base, agent, worker)
  if not COUNTS_ALL then return end
  local idle = base .. 'idle:' .. agent
  -- A removal first: a full Redis then lets the script write.
  redis.call('DEL', base .. 'called:' .. agent)
  if redis.call('ZCARD', idle) >= MOST_IDLE and not redis.call('ZSCORE', idle, worker) then return end
  redis.call('ZADD', idle, string.format('%.0f', now_ms()), worker)
  redis.call('PEXPIRE', idle, IDLE_MS)
end
