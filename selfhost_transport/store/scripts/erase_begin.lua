-- Begins to erase a session: from here on it is unknown, and takes nothing in while its tombstone stands, for `kept_out_ms`.
-- Its history is put aside, for erase_step.lua to take apart; the readers of its log find it gone. While turns are open, it only
-- takes no more of them in.
-- Returns {'busy', open turns} | {'unfinished'}: an earlier erasure has to be finished first | {'begun', publishes}.
--@keys meta
--@argv base session kept_out_ms
--@include _session.lua
local aside = base .. 'erasing:' .. session
local open_turns = redis.call('HLEN', K_ACTIVE)
if open_turns > 0 then
  redis.call('HSET', K_META, SESSION.erasing, '1')
  return {'busy', open_turns}
end
if redis.call('XLEN', K_HISTORY) > 0 and redis.call('XLEN', aside) > 0 then return {'unfinished'} end
local head_ms = split_id(redis.call('GET', K_HEAD) or '0-0')
-- First what a full Redis does not refuse.
redis.call('UNLINK', K_META, K_HEAD, K_LOG)
redis.call('SET', tombstone(), '1', 'PX', kept_out_ms)
if redis.call('XLEN', K_HISTORY) > 0 then redis.call('RENAME', K_HISTORY, aside) end
-- An entry whose predecessor no reader has: they look into the log.
redis.call('PUBLISH', CHANNEL, string.format('%.0f-0', math.max(now_ms(), head_ms + 1)) .. ' erased E\n')
return {'begun', redis.call('XLEN', aside)}
