-- Ends an exporter: what waits for it is removed, and nothing is queued for it any more.
--@keys exporters ended dropped
--@argv exporter
redis.call('DEL', ended)
redis.call('HDEL', dropped, exporter)
return redis.call('HDEL', exporters, exporter)
