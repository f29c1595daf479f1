-- Writes a publish out of another service's history to a session, at a position of the past.
-- `stood`, `stands`: where the import stood before ('': at its beginning), and where it stands then: `<position> <text>`.
-- `writes`: `turn_count` turns written to, of each what publish.lua takes; then of each message that was changed after its
--   create: index, kind (U|D), type letter, encoding, data, packed operation or '', position of its version.
-- A session that was written to since takes no more of an import.
-- The live log gets nothing, since nothing of it is new: a reader meanwhile finds a gap, and reads the history.
-- Returns {'written', epoch} | {'moved', where it stands} | {'continued', head}.
--@keys meta
--@argv base session entry new_epoch position retention_ms stood stands turn_count:number writes...
--@include _session.lua
local known = redis.call('HGET', K_META, SESSION.imported) or ''
if known ~= stood then return {'moved', known} end
local head = redis.call('GET', K_HEAD)
if (head or '') ~= (string.match(known, '^%S+') or '') then return {'continued', head or ''} end
local epoch = ensure_session(new_epoch)
redis.call('XADD', K_HISTORY, position, LOG.entry, entry)
redis.call('SET', K_HEAD, position)
redis.call('HSET', K_META, SESSION.floor, position, SESSION.imported, stands)
note_written(position, writes_at, turn_count)
for i = writes_at + 3 * turn_count, #ARGV, 7 do
  local ref = position .. ':' .. ARGV[i]
  redis.call('HSET', of_message('m', ref), MESSAGE.action, ARGV[i + 1], MESSAGE.type, ARGV[i + 2],
    MESSAGE.encoding, ARGV[i + 3], MESSAGE.operation, ARGV[i + 5], MESSAGE.version, ARGV[i + 6])
  if ARGV[i + 4] ~= '' then redis.call('SET', of_message('x', ref), ARGV[i + 4]) end
end
keep_for(retention_ms, position)
return {'written', epoch}
