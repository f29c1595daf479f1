-- Takes those items out of a stream whose `field` has the `value`, and out of the hands of the `group` that was given them ('' for
-- none). `cursor`: '-', or of the reply before; `limit`: items that are looked at.
-- Returns {number taken, cursor or ''}. Call again with the cursor until that is ''.
--@keys stream
--@argv field value cursor limit:number group
local items = redis.call('XRANGE', stream, cursor, '+', 'COUNT', limit)
local taken = 0
for _, item in ipairs(items) do
  local fields = item[2]
  for at = 1, #fields, 2 do
    if fields[at] == field and fields[at + 1] == value then
      if group ~= '' then redis.call('XACK', stream, group, item[1]) end
      taken = taken + redis.call('XDEL', stream, item[1])
    end
  end
end
return {taken, #items == limit and '(' .. items[#items][1] or ''}
