-- Has the turns of a bucket that end from now on queued for an exporter; once more changes only the limit.
-- KEYS: exporters, ended. ARGV: exporter, limit, group, ms after which a process without a turn is forgotten
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.pcall('XGROUP', 'CREATE', KEYS[2], ARGV[3], '0', 'MKSTREAM')
for _, fields in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[2], ARGV[3])) do
  local consumer = {}
  for at = 1, #fields, 2 do consumer[fields[at]] = fields[at + 1] end
  if consumer.pending == 0 and consumer.idle > tonumber(ARGV[4]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[2], ARGV[3], consumer.name)
  end
end
return 1
