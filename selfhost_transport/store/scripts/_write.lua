-- Writes operations of a turn's worker in order: creates and closing appends.
--   'C', entry, initial data, closing ('' unless the message stays open: then what closes it as cancelled)
--     after it possibly 'F', body, data: the chunk it begins with, an append of its own
--   'X', ref, body, packed extras, data: the closing append of an open message
-- Returns the positions, one per operation ('F' belongs to the one before).
local function write_operations(turn, i, count)
  local positions = {}
  for _ = 1, count do
    local kind, second, third, fourth = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
    local id
    if kind == 'C' then
      id = create(second)
      i = i + 4
      if fourth ~= '' then
        local ref = id .. ':0'
        redis.call('HSET', of_message('m', ref), MESSAGE.type, 's', MESSAGE.version, '', MESSAGE.encoding, '')
        redis.call('HSET', turn_key(turn), TURN.open_message .. ref, fourth)
        if ARGV[i] == 'F' then
          third = third .. ARGV[i + 2]
          emit('A' .. ref .. '\n' .. ARGV[i + 1])
          i = i + 3
        end
        redis.call('SET', of_message('x', ref), third)
      end
    else
      if ARGV[i + 4] ~= '' then redis.call('APPEND', of_message('x', second), ARGV[i + 4]) end
      id = emit('A' .. second .. '\n' .. third)
      redis.call('HSET', of_message('m', second), MESSAGE.version, id, MESSAGE.action, 'A', MESSAGE.extras, fourth)
      redis.call('HDEL', turn_key(turn), TURN.open_message .. second)
      shrink_text(second)
      i = i + 5
    end
    positions[#positions + 1] = id
  end
  return positions
end

-- Takes the messages that operations close out of those that are closed as cancelled with their turn.
local function leave_to_operations(turn, i, count)
  for _ = 1, count do
    if ARGV[i] == 'C' then
      i = i + 4
      if ARGV[i] == 'F' then i = i + 3 end
    else
      redis.call('HDEL', turn_key(turn), TURN.open_message .. ARGV[i + 1])
      i = i + 5
    end
  end
end
