-- The record of one message: `m:` holds what changed since its create, `x:` its assembled data.

-- The data of a message's create, from the history: type letter, encoding, data; or nil.
local function created_data(ref)
  local id, index = string.match(ref, '^(%d+%-%d+):(%d+)$')
  if not id then return nil end
  local found = redis.call('XRANGE', K_HISTORY, id, id)
  if not found[1] then return nil end
  local entry = found[1][2][2]
  local start = string.find(entry, '\n', 1, true) + 1
  for letter, size, encoding in string.gmatch(string.sub(entry, 2, start - 2), '(.)(%d+):([^;]*);') do
    if index == '0' then return letter, encoding, string.sub(entry, start, start + tonumber(size) - 1) end
    index = tostring(tonumber(index) - 1)
    start = start + tonumber(size)
  end
  return nil
end

-- The map of a message as it was created: everything but its data and encoding.
local function created_fields(ref)
  local id, index = string.match(ref, '^(%d+%-%d+):(%d+)$')
  local entry = redis.call('XRANGE', K_HISTORY, id, id)[1][2][2]
  local start = string.find(entry, '\n', 1, true) + 1
  local size = 0
  for length in string.gmatch(string.sub(entry, 2, start - 2), '.(%d+):[^;]*;') do size = size + tonumber(length) end
  return cmsgpack.unpack(string.sub(entry, start + size))[tonumber(index) + 1]
end

-- Makes the record if the message was never changed. Returns false when there is no such message.
local function ensure_record(ref)
  local record = of_message('m', ref)
  -- A record without data is that of a message that was annotated only.
  if redis.call('HEXISTS', record, MESSAGE.type) == 1 then return true end
  local letter, encoding, data = created_data(ref)
  if not letter then return false end
  redis.call('HSET', record, MESSAGE.type, letter, MESSAGE.version, '', MESSAGE.encoding, encoding)
  if data ~= '' then redis.call('SET', of_message('x', ref), data) end
  return true
end
