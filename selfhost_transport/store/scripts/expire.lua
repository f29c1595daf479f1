-- Handles one expired deadline of a bucket: an undecided cancel, a suspension that lasts too long, once to say
-- so and once to end it.
-- KEYS: deadlines. ARGV: base, unused, keep ms, window ms
-- Returns nil | {turn, session, 'cancelled' | 'denied' | 'escalated' | 'resumed' | 'gone'}.
--@include _names.lua
local bucket = ARGV[1]
local clock = redis.call('TIME')
local due = string.format('%.0f', tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000))
local expired = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', due, 'LIMIT', 0, 1)
if not expired[1] then return nil end
redis.call('ZREM', KEYS[1], expired[1])
local turn, name = split_pair(expired[1])
KEYS[1], ARGV[2] = bucket .. 's:' .. name, name
--@include _session.lua
--@include _turn.lua
end_also_when_full()
local key = turn_key(turn)
local fields = redis.call('HMGET', key, 'st', 'hd', 'cp', 'ce', 'aw', 'es', 'ex')
if fields[1] == 'cancelling' then
  if fields[2] == 'deny' and not fields[3] then
    redis.call('HSET', key, 'st', 'active')
    redis.call('HDEL', key, 'ce', 'cr')
    return {turn, session, 'denied'}
  end
  if not fields[3] then redis.call('HSET', key, 'cp', fields[4]) end
  tidy_log(close_turn(turn, 'cancelled', 'sc', 'rc', tonumber(ARGV[3])), tonumber(ARGV[4]))
  return {turn, session, 'cancelled'}
end
if fields[1] ~= 'suspended' then return {turn, session, 'gone'} end
if fields[6] then
  tidy_log(create(fields[6]), tonumber(ARGV[4]))
  redis.call('HDEL', key, 'es', 'ex')
  if fields[7] then redis.call('ZADD', DEADLINES, fields[7], pair(turn, session)) end
  return {turn, session, 'escalated'}
end
local id
for _, call in ipairs(cjson.decode(fields[5])) do
  local answer = redis.call('HGET', key, 'd:' .. call)
  if answer and redis.call('HSETNX', key, 'k:' .. call, '0-0') == 1 then
    id = create(answer)
    redis.call('HSET', key, 'k:' .. call, id)
  end
end
if all_answered(turn) then resume(turn) end
if id then tidy_log(id, tonumber(ARGV[4])) end
return {turn, session, 'resumed'}
