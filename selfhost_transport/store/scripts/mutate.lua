-- Changes one message of a session: an append, an update or a delete.
-- ARGV: base, session, ref, kind (A|U|D), body of the entry, publish id or '', idempotency ms, window ms,
--   append: data, type letter, encoding, packed extras or '', packed operation or '', packed name or '', max bytes
--   update/delete: data, type letter, encoding, packed state, packed operation or '', expected version
-- Returns {position} | {'repeated', position} | {'missing'} | {'mismatch', type} | {'too large', bytes} | {'stale'}.
--@include _session.lua
--@include _message.lua
local ref, kind, body, publish_id = ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local data, letter, encoding = ARGV[9], ARGV[10], ARGV[11]
local K_ONCE = of_session('i', publish_id)
if publish_id ~= '' then
  local known = redis.call('GET', K_ONCE)
  if known then return {'repeated', known} end
end
if not ensure_record(ref) then return {'missing'} end
local record, text = of_session('m', ref), of_session('x', ref)

if kind == 'A' then
  local current = redis.call('HMGET', record, 't', 'e')
  if letter ~= '-' and current[1] ~= '-' and (current[1] ~= letter or current[2] ~= encoding) then
    return {'mismatch', current[1]}
  end
  local size = redis.call('STRLEN', text) + #data
  if size > tonumber(ARGV[15]) then return {'too large', size} end
  if letter ~= '-' then
    redis.call('APPEND', text, data)
    redis.call('HSET', record, 't', letter, 'e', encoding)
  end
elseif redis.call('HGET', record, 'v') ~= ARGV[14] then
  return {'stale'}
else
  if letter == '-' then redis.call('DEL', text) else redis.call('SET', text, data) end
  redis.call('HSET', record, 't', letter, 'e', encoding, 'b', ARGV[12])
  redis.call('HDEL', record, 'x', 'n')
end

local id = emit(kind .. ref .. '\n' .. body)
redis.call('HSET', record, 'v', id, 'a', kind, 'o', ARGV[13])
if kind == 'A' then
  if ARGV[12] ~= '' then redis.call('HSET', record, 'x', ARGV[12]) end
  if ARGV[14] ~= '' then redis.call('HSET', record, 'n', ARGV[14]) end
else
  redis.call('XADD', of_session('v', ref), id, 'e', kind .. ref .. '\n' .. body)
end
if publish_id ~= '' then redis.call('SET', K_ONCE, id, 'PX', ARGV[7]) end
tidy_log(id, tonumber(ARGV[8]))
return {id}
