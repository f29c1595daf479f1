-- Adds a chunk to an open message of a turn: the one script on the path of every token.
-- `holder_fence`: of the turn's worker; `offset`: where the chunk begins, in bytes; `entry_head`: the entry up to the chunk.
-- The fence is gone once the turn is cancelled, ended or taken over: nothing of it can follow (P2, P6).
-- A chunk that was already written (a retry after a lost reply) is recognised by its offset and not written again.
-- Returns position | 'lost' | 'repeated' | 'gap'.
--@keys fence log head text
--@argv holder_fence channel offset:number chunk entry_head
if redis.call('GET', fence) ~= holder_fence then return 'lost' end
local length = redis.call('APPEND', text, chunk)
if length ~= offset + #chunk then
  local before = length - #chunk
  redis.call('SET', text, before == 0 and '' or redis.call('GETRANGE', text, 0, before - 1))
  if before >= offset + #chunk then return 'repeated' end
  return 'gap'
end
local entry = entry_head .. chunk
local id = redis.call('XADD', log, '*', LOG.entry, entry)
if #id >= 17 then
  local ms, counter = string.match(id, '^(%d+)-(%d+)$')
  if tonumber(counter) >= 990 then redis.call('XSETID', log, string.format('%.0f-0', tonumber(ms) + 1)) end
end
local previous = redis.call('GETSET', head, id) or '0-0'
redis.call('PUBLISH', channel .. DATABASE, id .. ' ' .. previous .. ' ' .. entry)
return id
