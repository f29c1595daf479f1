-- Gives the next turn of an agent's queue to a worker: lease, fence, and the entries that open the attempt.
-- KEYS: queue, leases. ARGV: base, group, worker, lease ms, the agent's own max attempts ('' for the send's), 
--   crash rule ('' likewise), grace of its cancel hook in ms ('' without a hook), what an undecided hook means
-- Returns nil | {turn, session, fence, attempt, step-start serial, series, input position, packed context, max attempts}.
-- Attempts that were handed back do not count.
local bucket = ARGV[1]

local function next_turn()
  while true do
    local read = redis.pcall('XREADGROUP', 'GROUP', ARGV[2], ARGV[3], 'COUNT', 1, 'STREAMS', KEYS[1], '>')
    if read and read.err then
      redis.call('XGROUP', 'CREATE', KEYS[1], ARGV[2], '0')
      read = redis.call('XREADGROUP', 'GROUP', ARGV[2], ARGV[3], 'COUNT', 1, 'STREAMS', KEYS[1], '>')
    end
    if not read then return nil end
    local item = read[1][2][1]
    redis.call('XACK', KEYS[1], ARGV[2], item[1])
    redis.call('XDEL', KEYS[1], item[1])
    local turn, name = item[2][2], item[2][4]
    -- A turn that was cancelled while it waited has its terminal already.
    if redis.call('HGET', bucket .. 't:' .. turn .. ':' .. name, 'st') == 'pending' then return turn, name end
  end
end

if redis.call('EXISTS', KEYS[1]) == 0 then return nil end
local turn, name = next_turn()
if not turn then return nil end

-- From here on as any script of the session that was found.
local worker, lease_ms, max_attempts, on_crash = ARGV[3], tonumber(ARGV[4]), ARGV[5], ARGV[6]
local hook_grace, hook_default = ARGV[7], ARGV[8]
KEYS[1], ARGV[2] = bucket .. 's:' .. name, name
--@include _session.lua
--@include _turn.lua
local key = turn_key(turn)
local fence = redis.call('HINCRBY', key, 'fn', 1)
local attempt = redis.call('HINCRBY', key, 'at', 1)
if max_attempts ~= '' then redis.call('HSET', key, 'ma', max_attempts) end
if on_crash ~= '' then redis.call('HSET', key, 'oc', on_crash) end
local fields = redis.call('HMGET', key, 'rs', 'ss', 'tr', 'ip', 'hb', 'ma', 'ri')
local series = redis.call('HGET', K_META, 'series')
if attempt == 1 or fields[7] then
  note_group(turn, create(fields[1]))
  redis.call('HDEL', key, 'ri')
end
local step_start = item_serial(create(fields[2]), series)
redis.call('HSET', key, 'st', 'active', 'wk', worker, 'sp', step_start, 'hk', hook_grace, 'hd', hook_default)
redis.call('HDEL', key, 'sq', 'sr')
redis.call('SET', fence_key(turn), fence)
redis.call('ZADD', LEASES, string.format('%.0f', now_ms() + lease_ms), turn .. ' ' .. session)
redis.call('PERSIST', K_LOG)
local counted = attempt - tonumber(fields[5] or '0')
return {turn, session, fence, counted, step_start, series, fields[4], fields[3], fields[6]}
