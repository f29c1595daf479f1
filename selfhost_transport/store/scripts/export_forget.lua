-- Ends an exporter: what waits for it is removed, and nothing is queued for it any more.
-- KEYS: exporters, ended, dropped. ARGV: exporter
redis.call('DEL', KEYS[2])
redis.call('HDEL', KEYS[3], ARGV[1])
return redis.call('HDEL', KEYS[1], ARGV[1])
