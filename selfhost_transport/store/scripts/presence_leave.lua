-- Takes some members of a connection out: of one session (DETACH), or of any one session (CLOSE).
-- `named_session`: '' for any; `owner`: or ''; `limit`: members at most; `kept`: events of the presence history.
-- With an owner nothing happens once another socket holds the connection: its members are no longer the caller's.
-- Returns how many left; call again until it is 0.
--@keys holder
--@argv base named_session connection owner limit kept window_ms:number
--@include _holder.lua
if owner ~= '' and redis.call('HGET', holder_key(connection), CONNECTION.owner) ~= owner then return 0 end
local session = named_session ~= '' and named_session or any_session(connection)
if not session then return 0 end
--@include _session.lua
--@include _presence.lua
return leave_some(connection, limit, kept, window_ms)
