-- Changes one message of a session: an append, an update or a delete.
-- ARGV: base, session, ref, kind (A|U|D), body of the entry, idempotency ms, window ms,
--   data, type letter, encoding,
--   append: packed extras or '', packed operation or '', name or '', max bytes
--   update/delete: packed state, packed operation or '', expected version, ''
--   turn the append is an activity of, or '', then one publish id ('' for none) for each piece that the append joins; one for all others
-- Returns {position} | {'repeated', result or '' for each publish id} | {'missing'} | {'mismatch', type}
--   | {'too large', bytes} | {'stale'}. A result is `<position>:<index of the piece>`. When any is known nothing is written.
--@include _session.lua
--@include _message.lua
local ref, kind, body, once_ms = ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local data, letter, encoding = ARGV[8], ARGV[9], ARGV[10]
local FIRST_ID = 16
local results, known = {}, false
for at = FIRST_ID, #ARGV do
  local result = ARGV[at] ~= '' and redis.call('GET', of_session('i', ARGV[at]))
  known = known or result
  results[#results + 1] = result or ''
end
if known then
  table.insert(results, 1, 'repeated')
  return results
end
if not ensure_record(ref) then return {'missing'} end
local record, text = of_message('m', ref), of_message('x', ref)

if kind == 'A' then
  local current = redis.call('HMGET', record, 't', 'e')
  if letter ~= '-' and current[1] ~= '-' and (current[1] ~= letter or current[2] ~= encoding) then
    return {'mismatch', current[1]}
  end
  local size = redis.call('STRLEN', text) + #data
  if size > tonumber(ARGV[14]) then return {'too large', size} end
  if letter ~= '-' then
    redis.call('APPEND', text, data)
    redis.call('HSET', record, 't', letter, 'e', encoding)
  end
elseif redis.call('HGET', record, 'v') ~= ARGV[13] then
  return {'stale'}
else
  if letter == '-' then redis.call('DEL', text) else redis.call('SET', text, data) end
  redis.call('HSET', record, 't', letter, 'e', encoding, 'b', ARGV[11])
  redis.call('HDEL', record, 'x', 'n')
end

local id = emit(kind .. ref .. '\n' .. body)
redis.call('HSET', record, 'v', id, 'a', kind, 'o', ARGV[12])
if kind == 'A' then
  if ARGV[11] ~= '' then redis.call('HSET', record, 'x', ARGV[11]) end
  if ARGV[13] ~= '' then redis.call('HSET', record, 'n', ARGV[13]) end
else
  redis.call('XADD', of_message('v', ref), id, 'e', kind .. ref .. '\n' .. body)
end
if ARGV[15] ~= '' then note_activity(ARGV[15], id, '', '') end
for at = FIRST_ID, #ARGV do
  if ARGV[at] ~= '' then
    redis.call('SET', of_session('i', ARGV[at]), id .. ':' .. (at - FIRST_ID), 'PX', once_ms)
  end
end
tidy_log(id, tonumber(ARGV[7]))
return {id}
