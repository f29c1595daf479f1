-- Takes some members of a connection out: of one session (DETACH), or of any one session (CLOSE).
-- KEYS: the connection's `o:`. ARGV: base, session or '' for any, connection, owner or '', limit, events cap, window ms
-- With an owner nothing happens once another socket holds the connection: its members are no longer the caller's.
-- Returns how many left; call again until it is 0.
local bucket, connection, owner = ARGV[1], ARGV[3], ARGV[4]
local holder, name = KEYS[1], ARGV[2]
if owner ~= '' and redis.call('HGET', holder, 'owner') ~= owner then return 0 end
if name == '' then
  for _, field in ipairs(redis.call('HKEYS', holder)) do
    if string.sub(field, 1, 2) == 's:' then name = string.sub(field, 3) end
  end
  if name == '' then return 0 end
end
KEYS[1], ARGV[2] = bucket .. 's:' .. name, name
--@include _session.lua
--@include _presence.lua
return leave_some(connection, tonumber(ARGV[5]), ARGV[6], tonumber(ARGV[7]))
