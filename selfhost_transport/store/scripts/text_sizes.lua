-- How long the data of messages are, without reading them. Returns bytes, 0 for a missing key.
--@keys texts...
local sizes = {}
for at, key in ipairs(KEYS) do sizes[at] = redis.call('STRLEN', key) end
return sizes
