-- Writes a publish out of another service's history to a session, at a position of the past.
-- ARGV: base, session, entry, series candidate, position, retention ms, where the import stood before ('': at its beginning),
--   where it stands then, number of turns written to, for each what publish.lua takes, then for each message that was changed
--   after its create: index, kind (U|D), type letter, encoding, data, packed operation or '', position of its version
-- Where an import stands: `<position> <text>`. A session that was written to since takes no more of it.
-- The live log gets nothing, since nothing of it is new: who watches meanwhile finds a gap, and reads the history.
-- Returns {'written', series} | {'moved', where it stands} | {'continued', head}.
--@include _session.lua
local id, turns = ARGV[5], tonumber(ARGV[9])
local stands = redis.call('HGET', K_META, 'imported') or ''
if stands ~= ARGV[7] then return {'moved', stands} end
local head = redis.call('GET', K_HEAD)
if (head or '') ~= (string.match(stands, '^%S+') or '') then return {'continued', head or ''} end
local series = ensure_session(ARGV[4])
redis.call('XADD', K_HISTORY, id, 'e', ARGV[3])
redis.call('SET', K_HEAD, id)
redis.call('HSET', K_META, 'floor', id, 'imported', ARGV[8])
note_written(id, 10, turns)
for at = 10 + 3 * turns, #ARGV, 7 do
  local ref = id .. ':' .. ARGV[at]
  redis.call('HSET', of_message('m', ref), 'a', ARGV[at + 1], 't', ARGV[at + 2], 'e', ARGV[at + 3], 'o', ARGV[at + 5],
    'v', ARGV[at + 6])
  if ARGV[at + 4] ~= '' then redis.call('SET', of_message('x', ref), ARGV[at + 4]) end
end
keep_for(ARGV[6], id)
return {'written', series}
