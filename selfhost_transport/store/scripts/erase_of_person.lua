-- Takes publishes and turns of one person out of a session that others use, too. What the live log has of before goes with them: who
-- resumes from there reads the history.
-- `items`: 'P', id of a publish, number of its messages, for each the body of the entry that says it is deleted
--   | 'T', turn | 'Q', question.
-- Returns the number of publishes that were there.
--@keys meta
--@argv base session window_ms:number items...
--@include _session.lua
--@include _headers.lua
local taken, last = 0, nil

local function take_publish(at)
  local id, count = ARGV[at + 1], tonumber(ARGV[at + 2])
  local found = redis.call('XRANGE', K_HISTORY, id, id)[1]
  if found then
    taken = taken + 1
    for _, transport in ipairs((headers_of(found[2][2]))) do
      if type(transport['event-id']) == 'string' then redis.call('UNLINK', of_session('e', transport['event-id'])) end
    end
    redis.call('XDEL', K_HISTORY, id)
    for index = 0, count - 1 do
      local ref = id .. ':' .. index
      redis.call('UNLINK', of_message('m', ref), of_message('x', ref), of_message('v', ref), of_message('b', ref),
        of_message('z', ref))
      last = emit('D' .. ref .. '\n' .. ARGV[at + 3 + index])
    end
  end
  return at + 3 + count
end

local head = redis.call('GET', K_HEAD)
if not head then return 0 end
redis.call('XTRIM', K_LOG, 'MAXLEN', 0)
redis.call('HSET', K_META, SESSION.floor, head)
local at = items_at
while at <= #ARGV do
  if ARGV[at] == 'P' then
    at = take_publish(at)
  else
    if ARGV[at] == 'T' then
      local turn = ARGV[at + 1]
      redis.call('HDEL', K_GROUPS, part(turn))
      redis.call('UNLINK', of_session('t', turn), of_session('y', turn))
    else
      redis.call('HDEL', K_GROUPS, of_question(ARGV[at + 1]))
    end
    at = at + 2
  end
end
if last then tidy_log(last, window_ms) end
return taken
