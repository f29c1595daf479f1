-- Registers an exporter with a bucket: turns that end from now on are queued for it, at most `limit`. A second call changes
-- only the limit. Consumers of the group that hold no turn and were idle for `idle_ms` are removed.
--@keys exporters ended
--@argv exporter limit group idle_ms:number
redis.call('HSET', exporters, exporter, limit)
-- It fails if the group exists: then it stays as it is.
redis.pcall('XGROUP', 'CREATE', ended, group, '0', 'MKSTREAM')
for _, fields in ipairs(redis.call('XINFO', 'CONSUMERS', ended, group)) do
  local consumer = {}
  for i = 1, #fields, 2 do consumer[fields[i]] = fields[i + 1] end
  if consumer.pending == 0 and consumer.idle > idle_ms then
    redis.call('XGROUP', 'DELCONSUMER', ended, group, consumer.name)
  end
end
return 1
