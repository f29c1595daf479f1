-- How long the data of messages are, without reading them. Returns bytes, 0 for a missing key.
--@keys texts...
local sizes = {}
for i, key in ipairs(KEYS) do sizes[i] = redis.call('STRLEN', key) end
return sizes
