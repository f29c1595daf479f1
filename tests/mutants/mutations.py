"""The faults: one change of one place each, and what has to notice it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

CHAOS: Final = ("chaos",)
_LUA: Final = "selfhost_transport/store/scripts"


@dataclass(frozen=True, slots=True)
class Mutation:
    """`before` becomes `after`, once, in `file`. `seen_by`: tests, or the chaos driver."""

    name: str
    file: str
    before: str
    after: str
    seen_by: tuple[str, ...] = CHAOS


MUTATIONS: Final = (
    # What ends, and what may still be written
    Mutation(
        "an append does not look at the fence",
        f"{_LUA}/append.lua",
        "if redis.call('GET', fence) ~= holder_fence then return 'lost' end",
        "",
    ),
    Mutation(
        "the end of a turn does not look at the fence",
        f"{_LUA}/end.lua",
        "if redis.call('GET', fence_key(turn)) ~= fence then",
        "if redis.call('EXISTS', turn_key(turn)) == 0 then",
    ),
    Mutation(
        "a cancel leaves texts open",
        f"{_LUA}/_turn.lua",
        "  close_open_messages(turn)\n  if turn_fields[2] == '0'",
        "  if turn_fields[2] == '0'",
    ),
    Mutation(
        "a turn that ended stays in the list of open ones",
        f"{_LUA}/_turn.lua",
        "  call_if_ours('HDEL', K_ACTIVE, turn)\n",
        "",
    ),
    Mutation(
        "a take does not raise the fence",
        f"{_LUA}/take.lua",
        "local fence, attempt = tonumber(fields[8]) + 1,",
        "local fence, attempt = 1,",
    ),
    Mutation(
        "a lost lease leaves the fence",
        f"{_LUA}/reap.lua",
        "redis.call('DEL', fence_key(turn))\n",
        "",
        ("tests/store/test_turns.py",),
    ),
    Mutation(
        "a chunk that is sent again is written again",
        f"{_LUA}/append.lua",
        "if length ~= offset + #chunk then",
        "if false then",
        ("tests/store/test_turns.py",),
    ),
    Mutation(
        "an error of one append ends those that were sent with it",
        f"{_LUA}/_several.lua",
        "local done, reply = pcall(once, at * KEYS_OF_ONE + 1, at * ARGUMENTS_OF_ONE + 1)",
        "local done, reply = true, once(at * KEYS_OF_ONE + 1, at * ARGUMENTS_OF_ONE + 1)",
        ("tests/store/test_combined_appends.py",),
    ),
    Mutation(
        "the script for several appends is not loaded again",
        "selfhost_transport/redis_io/pipeline.py",
        "self._take(next_call(), reply, several)",
        "self._take((call := next_call()), reply, call.script)",
        ("tests/redis_io/test_combined_calls.py",),
    ),
    # What was acknowledged
    Mutation(
        "a send that is repeated is another send",
        f"{_LUA}/submit.lua",
        "if known[2] then",
        "if false then",
    ),
    Mutation(
        "a publish that is repeated is another publish",
        f"{_LUA}/publish.lua",
        "  if known then return {known, epoch, 1} end",
        "",
    ),
    Mutation(
        "some publishes are acknowledged and not written",
        f"{_LUA}/publish.lua",
        "local id = create(entry)\n",
        "if tonumber(string.sub(tostring(redis.call('TIME')[2]), -1)) == 3 then\n"
        "  return {redis.call('GET', K_HEAD) or '1-0', epoch, 0}\nend\nlocal id = create(entry)\n",
    ),
    Mutation(
        "some turns are accepted and never queued",
        f"{_LUA}/submit.lua",
        "else\n  enqueue(turn, agent)\nend",
        "elseif tonumber(string.sub(id, -3, -3)) ~= 3 then\n  enqueue(turn, agent)\nend",
    ),
    Mutation(
        "an acknowledgement of a cancel overtakes earlier entries",
        "gateway/realtime/command_queue.py",
        "if done.reply_after is not None:",
        "if False:",
    ),
    # What readers get
    Mutation(
        "a part of the notifications is dropped",
        f"{_LUA}/_session.lua",
        "  redis.call('PUBLISH', CHANNEL, id .. ' ' .. previous .. ' ' .. entry)\n",
        "  if tonumber(string.sub(id, 13, 13)) % 3 ~= 0 then\n"
        "    redis.call('PUBLISH', CHANNEL, id .. ' ' .. previous .. ' ' .. entry)\n  end\n",
    ),
    Mutation(
        "a part of the wake-ups is dropped",
        f"{_LUA}/_turn.lua",
        "  if_ours(call_workers, base, agent)\n",
        "",
    ),
    Mutation(
        "gaps are not noticed",
        "gateway/fanout/log_follower.py",
        "        if previous != self.feed.last:\n",
        "        if False:\n",
    ),
    Mutation(
        "nothing is compared after the subscription was lost",
        "gateway/fanout/hub.py",
        "            if session not in self._starting:\n                follower.compare()\n",
        "            pass\n",
    ),
    Mutation(
        "a backlog leaves out its last entry",
        "gateway/fanout/backlog.py",
        "    return entry.position <= until and not",
        "    return entry.position < until and not",
    ),
    Mutation(
        "deltas are sent to who has not seen the message",
        "gateway/fanout/selection.py",
        "return DeliveryAction.SEND if has_rest else DeliveryAction.AGGREGATE",
        "return DeliveryAction.SEND",
        ("tests/gateway/test_session_feed.py", "tests/gateway/test_websocket.py"),
    ),
    # Names, rights, order
    Mutation(
        "parts of names are not escaped",
        f"{_LUA}/_names.lua",
        "  return (string.gsub(text, '[%%:%c ]', function(byte)"
        " return string.format('%%%02X', string.byte(byte)) end))\n",
        "  return text\n",
        ("tests/store", "tests/gateway"),
    ),
    Mutation(
        "anyone may cancel",
        "gateway/commands/turn_commands.py",
        "        capability.require(Operation.TURN_CANCEL, session)\n        return read_cancel",
        "        return read_cancel",
        ("tests/gateway/test_rights.py", "tests/gateway/test_turn_signals.py"),
    ),
    Mutation(
        "anyone may publish",
        "gateway/commands/publishing.py",
        "    context.sender.credential.capability.require(Right.PUBLISH, context.session)\n",
        "    pass\n",
        ("tests/gateway/test_rights.py", "tests/gateway/test_operations.py"),
    ),
    Mutation(
        "positions may fall below the end of a log that expired",
        f"{_LUA}/_session.lua",
        "  return string.format('%.0f-0', ms + 1)\nend\n\n-- A counter",
        "  return '*'\nend\n\n-- A counter",
        ("tests/store/test_sessions.py",),
    ),
    # The conversation
    Mutation(
        "a node whose parent was not read is lost",
        "selfhost_transport/turns/linear.py",
        "            if parent is not None and (parent not in self._path or node.parent in self._hidden):\n",
        "            if parent is None or parent not in self._path or node.parent in self._hidden:\n",
        ("tests/turns",),
    ),
    Mutation(
        "output of a lost attempt is folded in",
        "selfhost_transport/turns/runs.py",
        "        return step is not None and step_start_serial is not None"
        " and step.start_serial != step_start_serial\n",
        "        return False\n",
        ("tests/turns",),
    ),
    Mutation(
        "a renewal is believed whatever the fence says",
        f"{_LUA}/renew.lua",
        "== ARGV[i + 2] then",
        "~= '' then",
        ("tests/store", "tests/worker/test_lease.py"),
    ),
    Mutation(
        "a second answer to a call counts",
        f"{_LUA}/input.lua",
        "  if first then return {'resolved', first} end\n",
        "",
        ("tests/store/test_pauses.py",),
    ),
)
