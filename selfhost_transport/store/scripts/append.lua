-- Adds a piece to an open message of a turn: the one script on the path of every token.
-- KEYS: fence, log, head, text. ARGV: fence, channel, offset of the piece in bytes, piece, entry up to the piece
-- The fence is gone once the turn is cancelled, ended or taken over: nothing of it can follow (P2, P6).
-- A piece that was already written (a retry after a lost reply) is recognised by its offset and not written again.
-- Returns position | 'lost' | 'repeated' | 'gap'.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'lost' end
local piece, offset = ARGV[4], tonumber(ARGV[3])
local length = redis.call('APPEND', KEYS[4], piece)
if length ~= offset + #piece then
  local before = length - #piece
  redis.call('SET', KEYS[4], before == 0 and '' or redis.call('GETRANGE', KEYS[4], 0, before - 1))
  if before >= offset + #piece then return 'repeated' end
  return 'gap'
end
local entry = ARGV[5] .. piece
local id = redis.call('XADD', KEYS[2], '*', 'e', entry)
if #id >= 17 then
  local ms, counter = string.match(id, '^(%d+)-(%d+)$')
  if tonumber(counter) >= 990 then redis.call('XSETID', KEYS[2], string.format('%.0f-0', tonumber(ms) + 1)) end
end
local previous = redis.call('GETSET', KEYS[3], id) or '0-0'
redis.call('PUBLISH', ARGV[2] .. DATABASE, id .. ' ' .. previous .. ' ' .. entry)
return id
