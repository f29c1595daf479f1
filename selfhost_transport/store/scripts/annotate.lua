-- Adds annotations to messages, or takes them back, and folds them into the messages' summaries: all of them or none.
-- `publish_id`: or ''; `listed`: clients that a summary lists; `names`: of one type; `kept`: annotations of a message.
-- `annotations`, of each: ref, action (0 add, 1 take back), type, method, name, client ('' for an anonymous one), count,
--   body of its entry.
-- A summary, in the message's record, is a list of {type, name, total, unidentified, clients, {{client, count}…}}; what
-- each client has added is in a hash of its own, so that a list may be shorter than it would be.
-- Returns {epoch, position…}, one position per annotation | {'missing'} | {'full'}. Each message's new summary has one
-- entry, before those of the annotations.
--@keys meta
--@argv base session publish_id once_ms window_ms:number listed:number names:number kept annotations...
--@include _session.lua
--@include _message.lua
local K_ONCE = of_session('i', publish_id)
local epoch = redis.call('HGET', K_META, SESSION.epoch)
if publish_id ~= '' then
  local known = redis.call('GET', K_ONCE)
  if known then
    local answer = {epoch}
    for id in string.gmatch(known, '%S+') do answer[#answer + 1] = id end
    return answer
  end
end

-- The annotated messages in order. Nothing is written before all annotations are folded: what a client has added is
-- read through `given`, a number or a name by field of the message's hash, false for nothing.
local targets, by_ref = {}, {}

local function target_of(ref)
  local target = by_ref[ref]
  if target then return target end
  if not created_data(ref) then return nil end
  local record = of_message('m', ref)
  local packed = redis.call('HGET', record, MESSAGE.summary)
  target = {ref = ref, record = record, given_key = of_message('z', ref), given = {}, changed = false}
  target.summary = packed and cmsgpack.unpack(packed) or {}
  targets[#targets + 1], by_ref[ref] = target, target
  return target
end

local function given(target, field)
  if target.given[field] == nil then target.given[field] = redis.call('HGET', target.given_key, field) end
  return target.given[field]
end

local function line_of(target, kind, name)
  local same_type = 0
  for _, line in ipairs(target.summary) do
    if line[1] == kind then
      if line[2] == name then return line end
      same_type = same_type + 1
    end
  end
  return nil, same_type
end

-- A type has no line break, and a colon: no two fields are the same.
local function count_field(kind, name, client) return kind .. '\n' .. #name .. ':' .. name .. client end

local function added_by(target, kind, name, client)
  if client == '' then return 0 end
  return tonumber(given(target, count_field(kind, name, client)) or '0')
end

-- Changes what a client has added under a name by `change`.
local function fold(target, kind, name, client, change)
  local line = line_of(target, kind, name)
  if not line then
    line = {kind, name, 0, 0, 0, {}}
    target.summary[#target.summary + 1] = line
  end
  target.changed = true
  line[3] = line[3] + change
  if client == '' then
    line[4] = line[4] + change
    return
  end
  local before = added_by(target, kind, name, client)
  local left = before + change
  target.given[count_field(kind, name, client)] = left > 0 and string.format('%.0f', left)
  local place
  for index, pair in ipairs(line[6]) do if pair[1] == client then place = index end end
  if left <= 0 then
    line[5] = line[5] - 1
    if place then table.remove(line[6], place) end
  elseif place then
    line[6][place][2] = left
  else
    if before == 0 then line[5] = line[5] + 1 end
    if #line[6] < listed then line[6][#line[6] + 1] = {client, left} end
  end
end

-- The field with the name under which a client has added to a type of which it may have one.
local function chosen_field(kind, client) return 'unique\n' .. kind .. '\n' .. client end

-- Returns false for a name too many.
local function add(target, kind, method, name, client, count)
  local line, others = line_of(target, kind, name)
  if not line and others >= names then return false end
  if method == 'total' or method == 'multiple' then
    fold(target, kind, name, client, method == 'total' and 1 or count)
    return true
  end
  if added_by(target, kind, name, client) > 0 then return true end
  if method == 'unique' then
    local field = chosen_field(kind, client)
    local before = given(target, field)
    if before then fold(target, kind, before, client, -added_by(target, kind, before, client)) end
    target.given[field] = name
  end
  fold(target, kind, name, client, 1)
  return true
end

local function take_back(target, kind, method, name, client)
  local mine, line = added_by(target, kind, name, client), line_of(target, kind, name)
  if method == 'total' then
    -- An anonymous client owns nothing: one of the anonymous annotations is removed.
    if client == '' then mine = math.min(1, line and line[4] or 0) else mine = math.min(1, mine) end
  end
  if mine == 0 then return end
  if method == 'unique' then target.given[chosen_field(kind, client)] = false end
  fold(target, kind, name, client, -mine)
end

-- The name that a message has now; nil for none. Unpacked values are only read.
local function name_of(target)
  local changed = redis.call('HMGET', target.record, MESSAGE.name, MESSAGE.state)
  if changed[1] then return changed[1] end
  local fields = changed[2] and cmsgpack.unpack(changed[2]) or created_fields(target.ref)
  return type(fields.name) == 'string' and fields.name or nil
end

-- Writes what one message's annotations amount to now.
local function write_summary(target)
  local shown = {}
  for _, line in ipairs(target.summary) do
    if line[3] > 0 or line[2] == '' then shown[#shown + 1] = line end
  end
  local packed = cmsgpack.pack(shown)
  redis.call('HSET', target.record, MESSAGE.summary, packed)
  for field, value in pairs(target.given) do
    if value then redis.call('HSET', target.given_key, field, value) else redis.call('HDEL', target.given_key, field) end
  end
  if redis.call('HGET', target.record, MESSAGE.action) ~= 'D' then
    emit('S' .. target.ref .. '\n' .. string.char(0x92) .. packed .. cmsgpack.pack(name_of(target)))
  end
end

for i = annotations_at, #ARGV, 8 do
  local target = target_of(ARGV[i])
  if not target then return {'missing'} end
  local kind, method, name, client = ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5]
  if ARGV[i + 1] ~= '0' then
    take_back(target, kind, method, name, client)
  elseif not add(target, kind, method, name, client, tonumber(ARGV[i + 6])) then
    return {'full'}
  end
end
for _, target in ipairs(targets) do
  if target.changed then write_summary(target) end
end
local answer = {epoch}
for i = annotations_at, #ARGV, 8 do
  local entry = 'N' .. ARGV[i] .. '\n' .. ARGV[i + 7]
  local id = emit(entry)
  redis.call('XADD', of_message('b', ARGV[i]), 'MAXLEN', '~', kept, id, LOG.entry, entry)
  answer[#answer + 1] = id
end
if publish_id ~= '' then redis.call('SET', K_ONCE, table.concat(answer, ' ', 2), 'PX', once_ms) end
tidy_log(answer[#answer], window_ms)
return answer
