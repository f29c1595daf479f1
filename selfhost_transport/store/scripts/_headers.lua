-- The headers of a publish's messages that tell what turn they belong to, and the number of its messages.
local function headers_of(entry)
  local head = string.sub(entry, 2, string.find(entry, '\n', 1, true) - 1)
  local offset, count, found = #head + 3, 0, {}
  for size in string.gmatch(head, '.(%d+):[^;]*;') do
    offset, count = offset + tonumber(size), count + 1
  end
  local readable, maps = pcall(cmsgpack.unpack, string.sub(entry, offset))
  for _, message in ipairs(readable and type(maps) == 'table' and maps or {}) do
    local extras = type(message) == 'table' and message.extras
    local ai = type(extras) == 'table' and extras.ai
    local transport = type(ai) == 'table' and ai.transport
    if type(transport) == 'table' then found[#found + 1] = transport end
  end
  return found, count
end
