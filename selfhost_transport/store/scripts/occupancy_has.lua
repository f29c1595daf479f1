-- Whether a client is attached to a session, as the living processes name their readers. Returns 1 | 0.
--@keys occupancy
--@argv base client
--@include _clock.lua
local now = now_ms()
local fields = redis.call('HGETALL', occupancy)
for i = 1, #fields, 2 do
  local node = string.match(fields[i], '^readers (.*)$')
  local lease = node and redis.call('ZSCORE', base .. 'nodes', node)
  if lease and tonumber(lease) > now then
    local fresh_until, readers = string.match(fields[i + 1], '^(%d+) (.*)$')
    if tonumber(fresh_until) > now then
      for _, reader in ipairs(cjson.decode(readers)) do
        if reader == client then return 1 end
      end
    end
  end
end
return 0
