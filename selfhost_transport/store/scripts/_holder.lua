-- The connections that hold presence members in this bucket. Needs `base`.
local GONE = base .. 'gone'
local HOLDER_FIELDS = 3

local function holder_key(connection) return base .. 'o:' .. connection end

-- A session that a connection is present in, or nil.
local function any_session(connection)
  for _, field in ipairs(redis.call('HKEYS', holder_key(connection))) do
    if string.sub(field, 1, 2) == CONNECTION.session then return string.sub(field, 3) end
  end
  return nil
end

-- Makes a socket the holder of a connection's members, whichever held them, and cancels their leave.
local function hold(connection, owner, node, remain)
  local key = holder_key(connection)
  local before = redis.call('HGET', key, CONNECTION.node)
  if before and before ~= node then redis.call('SREM', base .. 'd:' .. before, connection) end
  redis.call('HSET', key, CONNECTION.owner, owner, CONNECTION.node, node, CONNECTION.remain, remain)
  if node ~= '' then redis.call('SADD', base .. 'd:' .. node, connection) end
  redis.call('ZREM', GONE, connection)
end

-- Forgets a connection that is in no session any more.
local function forget_if_absent(connection)
  local key = holder_key(connection)
  if redis.call('HLEN', key) > HOLDER_FIELDS then return end
  local node = redis.call('HGET', key, CONNECTION.node)
  if node then redis.call('SREM', base .. 'd:' .. node, connection) end
  redis.call('DEL', key)
  redis.call('ZREM', GONE, connection)
end
