-- Changes one message of a session: an append, an update or a delete.
-- `kind`: A|U|D; `body`: of the entry; `letter`: the type of `data`; `operation`: packed, or ''.
-- Of an append: `extras`, packed, and `name`, each or ''; `max_bytes`: of the message; `turn`: it is an activity of, or ''.
-- Of an update or delete: `state`, packed; `expected_version`.
-- `publish_ids`: one ('' for none) for each append that was joined to this one; one for all other kinds.
-- Returns {position} | {'repeated', result or '' for each publish id} | {'missing'} | {'mismatch', type}
--   | {'too large', bytes} | {'stale'}. A result is `<position>:<index of the append>`. When any is known nothing is
--   written.
--@keys meta
--@argv base session ref kind body once_ms window_ms:number data letter encoding extras state operation
--@argv name expected_version max_bytes:number turn publish_ids...
--@include _session.lua
--@include _message.lua
local results, known = {}, false
for i = publish_ids_at, #ARGV do
  local result = ARGV[i] ~= '' and redis.call('GET', of_session('i', ARGV[i]))
  known = known or result
  results[#results + 1] = result or ''
end
if known then
  table.insert(results, 1, 'repeated')
  return results
end
if redis.call('EXISTS', K_META) == 0 or not ensure_record(ref) then return {'missing'} end
local record, text = of_message('m', ref), of_message('x', ref)

if kind == 'A' then
  local current = redis.call('HMGET', record, MESSAGE.type, MESSAGE.encoding)
  if letter ~= '-' and current[1] ~= '-' and (current[1] ~= letter or current[2] ~= encoding) then
    return {'mismatch', current[1]}
  end
  local size = redis.call('STRLEN', text) + #data
  if size > max_bytes then return {'too large', size} end
  if letter ~= '-' then
    redis.call('APPEND', text, data)
    redis.call('HSET', record, MESSAGE.type, letter, MESSAGE.encoding, encoding)
  end
elseif redis.call('HGET', record, MESSAGE.version) ~= expected_version then
  return {'stale'}
else
  if letter == '-' then redis.call('DEL', text) else redis.call('SET', text, data) end
  redis.call('HSET', record, MESSAGE.type, letter, MESSAGE.encoding, encoding, MESSAGE.state, state)
  redis.call('HDEL', record, MESSAGE.extras, MESSAGE.name)
end

local id = emit(kind .. ref .. '\n' .. body)
redis.call('HSET', record, MESSAGE.version, id, MESSAGE.action, kind, MESSAGE.operation, operation)
if kind == 'A' then
  if extras ~= '' then redis.call('HSET', record, MESSAGE.extras, extras) end
  if name ~= '' then redis.call('HSET', record, MESSAGE.name, name) end
else
  redis.call('XADD', of_message('v', ref), id, LOG.entry, kind .. ref .. '\n' .. body)
end
if turn ~= '' then note_activity(turn, id, '', '') end
for i = publish_ids_at, #ARGV do
  if ARGV[i] ~= '' then
    redis.call('SET', of_session('i', ARGV[i]), id .. ':' .. (i - publish_ids_at), 'PX', once_ms)
  end
end
tidy_log(id, window_ms)
return {id}
