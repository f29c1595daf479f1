-- Several calls of a script in one, each for itself: an error of one neither undoes nor hides another.
-- `once` is the script: its keys are those from `KEYS[key]` on, its arguments those from `ARGV[value]` on.
-- Returns their replies, which are words, joined by spaces; where there are errors among them, a list.
local redis, pcall, KEYS, ARGV = redis, pcall, KEYS, ARGV
local function once(key, value)
--@script
end
local replies, failed = {}, false
for at = 0, #ARGV / ARGUMENTS_OF_ONE - 1 do
  local done, reply = pcall(once, at * KEYS_OF_ONE + 1, at * ARGUMENTS_OF_ONE + 1)
  if not done then reply, failed = {err = reply}, true end
  replies[at + 1] = reply
end
if failed then return replies end
return table.concat(replies, ' ')
