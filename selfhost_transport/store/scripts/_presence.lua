-- Presence members of a session; follows _session.lua and _holder.lua. A member is a pair of connection and client; its record in
-- the roster is `<position> <id>\n<packed member map>`: the position and the id of its last change.
local K_ROSTER, K_EVENTS = base .. 'r:' .. session, base .. 'k:' .. session

local function clients_key(connection) return of_session('u', connection) end
local function fields_of(member) return string.sub(member, string.find(member, '\n', 1, true) + 1) end

-- The member map of a leave. A map of one key has the extras alone: they follow those of the last change in one map, of
-- which readers take the later value.
local function fields_of_leave(known, given)
  if given == '' then return fields_of(known) end
  if string.byte(given) ~= 0x81 then return given end
  local last = fields_of(known)
  return string.char(string.byte(last) + 1) .. string.sub(last, 2) .. string.sub(given, 2)
end

local function packed_text(text)
  if #text < 32 then return string.char(0xa0 + #text) .. text end
  if #text < 256 then return string.char(0xd9, #text) .. text end
  return string.char(0xda, math.floor(#text / 256), #text % 256) .. text
end

-- One change in msgpack: [action, id or nil, member map]. Without an id the reader makes one from the position, which
-- shows clients that the service made the event (protocol section 8.3).
local function change_item(action, id, fields)
  return string.char(0x93, action) .. (id == '' and string.char(0xc0) or packed_text(id)) .. fields
end

-- Writes changes as one entry to the log and to the presence history. Returns its position.
local function announce(items, cap)
  local count = #items
  local header = string.char(0xdc, math.floor(count / 256), count % 256)
  if count < 16 then header = string.char(0x90 + count) end
  local entry = 'P\n' .. header .. table.concat(items)
  local id = emit(entry)
  redis.call('XADD', K_EVENTS, 'MAXLEN', '~', cap, id, LOG.entry, entry)
  return id
end

-- Forgets that a connection is in this session, once none of its clients is.
local function forget_if_left(connection)
  if redis.call('EXISTS', clients_key(connection)) == 1 then return end
  redis.call('HDEL', holder_key(connection), CONNECTION.session .. session)
  forget_if_absent(connection)
end

-- Takes up to `limit` of a connection's members out of this session, with their last data. Returns how many.
local function leave_some(connection, limit, cap, window_ms)
  local items = {}
  for _, client in ipairs(redis.call('SPOP', clients_key(connection), limit)) do
    local field = pair(connection, client)
    local member = redis.call('HGET', K_ROSTER, field)
    if member then
      items[#items + 1] = change_item(3, '', fields_of(member))
      redis.call('HDEL', K_ROSTER, field)
    end
  end
  forget_if_left(connection)
  if #items > 0 then tidy_log(announce(items, cap), window_ms) end
  return #items
end
