-- The verdict on a cancel that an agent's hook was asked about.
-- ARGV: base, session, turn, fence, verdict (allow|deny), entry that tells of it, window ms, grace for a closing note in ms
-- `allow` seals the turn: its content is refused from here on (P2), except for a closing note under the fence `<fence>n`.
-- Returns {'lost', status} | {position}.
--@include _session.lua
--@include _turn.lua
local turn, key = ARGV[3], of_session('t', ARGV[3])
local status = redis.call('HGET', key, 'st')
if status ~= 'cancelling' or redis.call('GET', fence_key(turn)) ~= ARGV[4] then return {'lost', status or 'unknown'} end
local id
if ARGV[5] == 'allow' then
  close_open_messages(turn)
  id = create(ARGV[6])
  redis.call('HSET', key, 'cp', id)
  redis.call('SET', fence_key(turn), ARGV[4] .. 'n')
  set_deadline(turn, tonumber(ARGV[8]))
else
  id = create(ARGV[6])
  redis.call('HSET', key, 'st', 'active')
  redis.call('HDEL', key, 'ce', 'cr')
  redis.call('ZREM', DEADLINES, pair(turn, session))
end
tidy_log(id, tonumber(ARGV[7]))
return {id}
