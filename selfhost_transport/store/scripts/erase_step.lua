-- Takes some of what an erased session has left: messages with their records, turns, members. `limit`: publishes, messages, turns
-- and members per call; `kept_out_ms`: how long the tombstone stands from here on.
-- Returns how many publishes were taken, or nil when nothing is left. Call again until then.
--@keys meta
--@argv base session limit:number kept_out_ms
--@include _session.lua
--@include _headers.lua
--@include _holder.lua
--@include _presence.lua
-- Publishes differ much in size: few are read at once, and none after so many bytes.
local READ_AT_ONCE, LARGE = 4, 131072
local aside = base .. 'erasing:' .. session

local function take_publish(id, entry)
  local headers, count = headers_of(entry)
  for index = 0, count - 1 do
    local ref = id .. ':' .. index
    redis.call('UNLINK', of_message('m', ref), of_message('x', ref), of_message('v', ref), of_message('b', ref),
      of_message('z', ref))
  end
  for _, transport in ipairs(headers) do
    if type(transport['event-id']) == 'string' then redis.call('UNLINK', of_session('e', transport['event-id'])) end
  end
  redis.call('XDEL', aside, id)
  return count
end

local function take_turn(field)
  redis.call('HDEL', K_GROUPS, field)
  -- Fields of questions have a space.
  if string.find(field, ' ', 1, true) then return end
  local turn = whole(field)
  redis.call('UNLINK', of_session('t', turn), of_session('f', turn), of_session('y', turn))
  redis.call('ZREM', base .. 'leases', pair(turn, session))
  redis.call('ZREM', base .. 'deadlines', pair(turn, session))
end

local function take_member(field)
  local connection, client = split_pair(field)
  redis.call('HDEL', K_ROSTER, field)
  redis.call('SREM', clients_key(connection), client)
  forget_if_left(connection)
end

local function some_of(key)
  if redis.call('EXISTS', key) == 0 then return {} end
  return redis.call('HRANDFIELD', key, limit)
end

local taken, messages, bytes = 0, 0, 0
while taken < limit and messages < limit and bytes < LARGE do
  local items = redis.call('XRANGE', aside, '-', '+', 'COUNT', READ_AT_ONCE)
  if #items == 0 then break end
  for _, item in ipairs(items) do
    if messages >= limit then break end
    local entry = item[2][2]
    taken, messages, bytes = taken + 1, messages + take_publish(item[1], entry), bytes + #entry
  end
end
local turns, members = {}, {}
-- Not of a session that has begun anew since the erasure was interrupted.
if redis.call('EXISTS', K_META) == 0 then turns, members = some_of(K_GROUPS), some_of(K_ROSTER) end
for _, field in ipairs(turns) do take_turn(field) end
for _, field in ipairs(members) do take_member(field) end
if taken + #turns + #members == 0 then return nil end
redis.call('SET', tombstone(), '1', 'PX', kept_out_ms)
return taken
