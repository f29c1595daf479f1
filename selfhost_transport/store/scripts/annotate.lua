-- Adds an annotation to a message, or takes one back, and folds it into the message's summary.
-- ARGV: base, session, ref, action (0 add, 1 take back), type, method, name, client ('' if nobody is known), count,
--   body of the annotation's entry, publish id or '', idempotency ms, window ms, clients listed, names of a type,
--   annotations kept
-- The summary, in the message's record, is a list of {type, name, total, unidentified, clients, {{client, count}…}}; what
-- each client has added is in a hash of its own, so that a list may be shorter than it would be.
-- Returns {position, series} | {'missing'} | {'full'}. The summary's entry comes before the annotation's.
--@include _session.lua
--@include _message.lua
local ref, adds, kind, method, name, client = ARGV[3], ARGV[4] == '0', ARGV[5], ARGV[6], ARGV[7], ARGV[8]
local count, listed, names = tonumber(ARGV[9]), tonumber(ARGV[14]), tonumber(ARGV[15])
local K_ONCE, K_GIVEN = of_session('i', ARGV[11]), of_session('z', ref)
local series = redis.call('HGET', K_META, 'series')
if ARGV[11] ~= '' then
  local known = redis.call('GET', K_ONCE)
  if known then return {known, series} end
end
if not created_data(ref) then return {'missing'} end
local record = of_session('m', ref)
local packed = redis.call('HGET', record, 'y')
local summary = packed and cmsgpack.unpack(packed) or {}

local function given_field(of_name) return kind .. '\n' .. #of_name .. ':' .. of_name .. client end

local function line_of(of_name)
  local same_type = 0
  for _, line in ipairs(summary) do
    if line[1] == kind then
      if line[2] == of_name then return line end
      same_type = same_type + 1
    end
  end
  return nil, same_type
end

-- Changes what a client has added under a name by `change`.
local function fold(of_name, change)
  local line = line_of(of_name)
  if not line then
    line = {kind, of_name, 0, 0, 0, {}}
    summary[#summary + 1] = line
  end
  line[3] = line[3] + change
  if client == '' then
    line[4] = line[4] + change
    return
  end
  local left = redis.call('HINCRBY', K_GIVEN, given_field(of_name), change)
  local at
  for index, pair in ipairs(line[6]) do if pair[1] == client then at = index end end
  if left <= 0 then
    redis.call('HDEL', K_GIVEN, given_field(of_name))
    line[5] = line[5] - 1
    if at then table.remove(line[6], at) end
  elseif at then
    line[6][at][2] = left
  else
    if left == change then line[5] = line[5] + 1 end
    if #line[6] < listed then line[6][#line[6] + 1] = {client, left} end
  end
end

local function given(of_name)
  if client == '' then return 0 end
  return tonumber(redis.call('HGET', K_GIVEN, given_field(of_name)) or '0')
end

-- The name under which a client has added to a type of which it may have one.
local chosen_field = 'unique\n' .. kind .. '\n' .. client

local function add()
  local line, others = line_of(name)
  if not line and others >= names then return nil end
  if method == 'total' or method == 'multiple' then
    fold(name, method == 'total' and 1 or count)
    return true
  end
  if given(name) > 0 then return false end
  if method == 'unique' then
    local before = redis.call('HGET', K_GIVEN, chosen_field)
    if before then fold(before, -given(before)) end
    redis.call('HSET', K_GIVEN, chosen_field, name)
  end
  fold(name, 1)
  return true
end

local function take_back()
  local mine, line = given(name), line_of(name)
  if method == 'total' then
    -- Whoever is not known has nothing of its own; there is one less of what nobody owns.
    if client == '' then mine = math.min(1, line and line[4] or 0) else mine = math.min(1, mine) end
  end
  if mine == 0 then return false end
  if method == 'unique' then redis.call('HDEL', K_GIVEN, chosen_field) end
  fold(name, -mine)
  return true
end

local changed
if adds then changed = add() else changed = take_back() end
if changed == nil then return {'full'} end
if changed then
  local kept = {}
  for _, line in ipairs(summary) do
    if line[3] > 0 or line[2] == '' then kept[#kept + 1] = line end
  end
  packed = cmsgpack.pack(kept)
  redis.call('HSET', record, 'y', packed)
  if redis.call('HGET', record, 'a') ~= 'D' then emit('S' .. ref .. '\n' .. packed) end
end
local entry = 'N' .. ref .. '\n' .. ARGV[10]
local id = emit(entry)
redis.call('XADD', of_session('b', ref), 'MAXLEN', '~', ARGV[16], id, 'e', entry)
if ARGV[11] ~= '' then redis.call('SET', K_ONCE, id, 'PX', ARGV[12]) end
tidy_log(id, tonumber(ARGV[13]))
return {id, series}
