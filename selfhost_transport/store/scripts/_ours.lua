-- A key of ours may hold a value of another type: a neighbour in the same Redis wrote it, or a person. What needs that key is
-- refused; but it must hold up neither the ending of its turn (P3), nor what is due of other sessions in its bucket.

-- Does a step, and leaves it out, with nil, where a key has the wrong type. What the step did before that stays done.
local function if_ours(step, ...)
  local done, result = pcall(step, ...)
  if done then return result end
  local why = type(result) == 'table' and result.err or tostring(result)
  if not string.find(why, 'WRONGTYPE', 1, true) then error(result, 0) end
end

local function call_if_ours(...) return if_ours(redis.call, ...) end
