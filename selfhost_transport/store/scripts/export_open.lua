-- Has the turns of a bucket that end from now on queued for an exporter; once more changes only the limit.
-- KEYS: exporters, ended. ARGV: exporter, limit, group
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.pcall('XGROUP', 'CREATE', KEYS[2], ARGV[3], '0', 'MKSTREAM')
return 1
