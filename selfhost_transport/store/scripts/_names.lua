-- Names made of parts that clients choose; the same as in store/names.py. A part has no `:`, no space and no control
-- character, so what joins parts is found in none of them, and different parts never make the same name.
local function part(text)
  if not string.find(text, '[%%:%c ]') then return text end
  return (string.gsub(text, '[%%:%c ]', function(byte) return string.format('%%%02X', string.byte(byte)) end))
end

local function whole(text)
  return (string.gsub(text, '%%(%x%x)', function(hex) return string.char(tonumber(hex, 16)) end))
end

-- A name of two parts. The last part of a name needs no escape.
local function pair(first, last) return part(first) .. ' ' .. last end

local function split_pair(name)
  local first, last = string.match(name, '^(%S*) (.*)$')
  return whole(first), last
end
