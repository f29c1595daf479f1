-- Has an item that was given up delivered again, after those that wait, under the id of its first delivery.
-- Returns 1 | 0: there is no such item, or no exporter of this name.
--@keys exporters ended buried
--@argv exporter item channel
local found = redis.call('XRANGE', buried, item, item)[1]
if not found or redis.call('HEXISTS', exporters, exporter) == 0 then return 0 end
local fields = {}
for i = 1, #found[2], 2 do
  if found[2][i] ~= ENDED.error then
    fields[#fields + 1] = found[2][i]
    fields[#fields + 1] = found[2][i + 1]
  end
end
redis.call('XADD', ended, '*', unpack(fields))
redis.call('XDEL', buried, item)
redis.call('PUBLISH', channel .. DATABASE, '')
return 1
