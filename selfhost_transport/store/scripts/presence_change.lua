-- Applies the presence operations of one frame, in order, and announces those that changed something as one entry.
-- `publish_id`, `connection`: or ''; `kept`: events of the presence history; `members`: at most.
-- `operations`, of each: action (2|3|4), client, id, packed member map ('' for a leave with the last data; a map of the
--   extras alone for one with the last data and other extras).
-- An operation with the id that its member has is a repeat or a re-entry: no change, but the members are held again.
-- Returns {position or '', epoch, number of changes} | {'full', members}.
--@keys meta
--@argv base session new_epoch window_ms:number publish_id once_ms connection owner node remain_ms kept members:number
--@argv lease_ms:number operations...
--@include _session.lua
--@include _holder.lua
--@include _presence.lua
local WIDTH = 4
local K_ONCE = of_session('i', publish_id)
if publish_id ~= '' then
  local known = redis.call('GET', K_ONCE)
  if known then return {known, redis.call('HGET', K_META, SESSION.epoch), 0} end
end

local entering = 0
for i = operations_at, #ARGV, WIDTH do
  if ARGV[i] ~= '3' and redis.call('HEXISTS', K_ROSTER, pair(connection, ARGV[i + 1])) == 0 then
    entering = entering + 1
  end
end
local size = redis.call('HLEN', K_ROSTER)
if entering > 0 and size + entering > members then return {'full', size} end

local epoch = ensure_session(new_epoch)
local items, changed = {}, {}
for i = operations_at, #ARGV, WIDTH do
  local action, client, id, fields = tonumber(ARGV[i]), ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local field = pair(connection, client)
  local known = redis.call('HGET', K_ROSTER, field)
  if action == 3 then
    if known then
      items[#items + 1] = change_item(3, id, fields_of_leave(known, fields))
      redis.call('HDEL', K_ROSTER, field)
      if connection ~= '' then redis.call('SREM', clients_key(connection), client) end
      changed[field] = nil
    end
  elseif not known or id == '' or string.match(known, '^%S+ ([^\n]*)\n') ~= id then
    items[#items + 1] = change_item(known and action or 2, id, fields)
    -- The position is known once the entry is written.
    redis.call('HSET', K_ROSTER, field, '0-0 ' .. id .. '\n' .. fields)
    if connection ~= '' then redis.call('SADD', clients_key(connection), client) end
    changed[field] = id .. '\n' .. fields
  end
end

local position = ''
if #items > 0 then
  position = announce(items, kept)
  for field, rest in pairs(changed) do redis.call('HSET', K_ROSTER, field, position .. ' ' .. rest) end
  tidy_log(position, window_ms)
end
if connection ~= '' then
  if redis.call('EXISTS', clients_key(connection)) == 1 then
    hold(connection, owner, node, remain_ms)
    redis.call('HSET', holder_key(connection), CONNECTION.session .. session, '1')
    if node ~= '' then
      local expiry = now_ms() + lease_ms
      redis.call('ZADD', base .. 'nodes', 'NX', string.format('%.0f', expiry), node)
    end
  else
    forget_if_left(connection)
  end
end
if publish_id ~= '' then redis.call('SET', K_ONCE, position, 'PX', once_ms) end
return {position, epoch, #items}
