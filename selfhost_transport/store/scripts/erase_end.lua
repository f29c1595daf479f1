-- Ends the erasure of a session that has nothing left but single keys. `kept_out_ms`: how long its tombstone stands from here on;
-- 0: the name may be used at once.
--@keys meta
--@argv base session kept_out_ms
--@include _session.lua
-- Some of them were written meanwhile, when members left.
redis.call('UNLINK', K_META, K_HEAD, K_LOG, K_GROUPS, K_ACTIVE, base .. 'erasing:' .. session, base .. 'open:' .. session,
  base .. 'w:' .. session, base .. 'r:' .. session, base .. 'k:' .. session, base .. 'j:' .. session)
redis.call('ZREM', K_RETENTION, session)
redis.call('ZREM', base .. 'used', session)
redis.call('DEL', tombstone())
if kept_out_ms ~= '0' then redis.call('SET', tombstone(), '1', 'PX', kept_out_ms) end
return 1
