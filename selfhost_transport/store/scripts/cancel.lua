-- Cancels the turns a filter matches: authoritative, with the worker hung, dead or absent (P2).
-- `filter` (turn|input|owner|connection|all) and its `value`; `early` (0|1): a filter that names a turn which does not
-- exist yet is kept for `early_ms` and applied when it does; `input_turn`: turn id of the named input; `force` (0|1):
-- without asking hooks; `cursor`, `last`, `position`: '', or of the reply to the call before.
-- One call cancels some of them; the caller repeats it with the cursor until that is ''. Of those that match,
-- a few are closed; the others are marked, and the caller has them closed (close_cancelled.lua).
-- Returns {position, epoch, cursor, last, head, number matched, number asked, number marked, matched…, asked…, marked…,
-- already ended…}; `asked` are those of the matched whose agent's hook decides. The position is that of the cancel's
-- entry, '' while none has matched; after the last call without a match that of the first cancel of an ended turn, else
-- the head. After `head` no content is written of those that were closed or marked; those that are asked still write.
--@keys meta
--@argv base session filter value cancel_entry keep_ms:number window_ms:number early_ms early new_epoch input_turn
--@argv requester force cursor last position
--@include _session.lua
--@include _turn.lua
end_also_when_full()
if position == '' then position = nil end
local epoch = redis.call('HGET', K_META, SESSION.epoch) or new_epoch
-- Turns that are sent meanwhile are not meant.
if last == '' then last = score_of(head_if_ours()) end
local turns, asked, marked, ended = {}, {}, {}, {}
turns, cursor = matching(filter, value, cursor, last)
position, asked, marked = cancel_turns(turns, cancel_entry, keep_ms, requester, force == '1', position)
if #turns > 0 then
  tidy_after(position, window_ms)
elseif cursor == '' and not position then
  if filter == 'turn' or filter == 'input' then
    local turn = value
    if filter == 'input' then turn = input_turn end
    local known = redis.call('HMGET', turn_key(turn), TURN.status, TURN.cancel_position, TURN.terminal_position)
    if known[1] then
      ended[1] = turn
      position = known[2] or known[3]
    elseif early == '1' and not is_erased() then
      redis.call('SET', early_key(filter, value), cancel_entry, 'PX', early_ms)
    end
  end
  position = position or head_if_ours()
end
local head = head_if_ours()
return extend({position or '', epoch, cursor, last, head, #turns, #asked, #marked}, turns, asked, marked, ended)
