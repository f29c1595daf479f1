-- Has the turns of a bucket that end from now on queued for an exporter; once more changes only the limit.
-- A process without a turn is forgotten after `idle_ms`.
--@keys exporters ended
--@argv exporter limit group idle_ms:number
redis.call('HSET', exporters, exporter, limit)
redis.pcall('XGROUP', 'CREATE', ended, group, '0', 'MKSTREAM')
for _, fields in ipairs(redis.call('XINFO', 'CONSUMERS', ended, group)) do
  local consumer = {}
  for at = 1, #fields, 2 do consumer[fields[at]] = fields[at + 1] end
  if consumer.pending == 0 and consumer.idle > idle_ms then
    redis.call('XGROUP', 'DELCONSUMER', ended, group, consumer.name)
  end
end
return 1
