-- Carries out what an agent's hook has decided about a cancel.
-- `decision`: allow|deny; `entry` announces it; `grace_ms`: for a closing note.
-- `allow` seals the turn: its content is refused from here on (P2), except a closing note under the fence `<fence>n`.
-- Returns {'lost', status} | {position}.
--@keys meta
--@argv base session turn fence decision entry window_ms:number grace_ms:number
--@include _session.lua
--@include _turn.lua
local key = turn_key(turn)
local status = redis.call('HGET', key, TURN.status)
if status ~= 'cancelling' or redis.call('GET', fence_key(turn)) ~= fence then return {'lost', status or 'unknown'} end
local id
if decision == 'allow' then
  close_open_messages(turn)
  id = create(entry)
  redis.call('HSET', key, TURN.cancel_position, id)
  redis.call('SET', fence_key(turn), fence .. 'n')
  set_deadline(turn, grace_ms)
else
  id = create(entry)
  redis.call('HSET', key, TURN.status, 'active')
  redis.call('HDEL', key, TURN.cancel_entry, TURN.cancel_requester)
  redis.call('ZREM', DEADLINES, pair(turn, session))
end
tidy_log(id, window_ms)
return {id}
