-- Takes some members of a connection out: of one session (DETACH), or of any one session (CLOSE).
-- ARGV: base, session or '' for any, connection, owner or '', limit, events cap, window ms
-- With an owner nothing happens once another socket holds the connection: its members are no longer the caller's.
-- Returns how many left; call again until it is 0.
local base, connection, owner = ARGV[1], ARGV[3], ARGV[4]
--@include _holder.lua
if owner ~= '' and redis.call('HGET', holder_key(connection), 'owner') ~= owner then return 0 end
if ARGV[2] == '' then ARGV[2] = any_session(connection) end
if not ARGV[2] then return 0 end
KEYS[1] = base .. 's:' .. ARGV[2]
--@include _session.lua
--@include _presence.lua
return leave_some(connection, ARGV[5], ARGV[6], tonumber(ARGV[7]))
