-- Entries for a turn whose own were not left with it: Redis may have evicted its hash, and a refusal for lack of a decision
-- belongs to no one. Names of messages and headers as in turns/headers.py.
local function plain_entry(name, headers)
  return 'C-0:;\n' .. cmsgpack.pack({{name = name, extras = {ai = {transport = headers}}}})
end

local function plain_end(turn, owner, status)
  local headers = {['run-id'] = turn, ['run-client-id'] = owner, ['run-reason'] = status}
  if status ~= 'cancelled' then
    headers['run-reason'], headers['error-code'] = 'error', '104008'
    headers['error-message'] = 'the turn could not be finished: Redis has lost its state; send the message again'
  end
  return plain_entry('ai-run-end', headers)
end

local function plain_denial(turn, requester)
  return plain_entry('ai-cancel-denied', {['run-id'] = turn, ['cancel-client-id'] = requester,
    ['error-message'] = 'the agent did not decide in time'})
end
