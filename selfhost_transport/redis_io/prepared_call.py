"""A script call with fixed first arguments, which are packed once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from selfhost_transport.redis_io.calls import Combination, ReplyReceiver
from selfhost_transport.redis_io.databases import LuaScript
from selfhost_transport.redis_io.link import Argument, pack
from selfhost_transport.redis_io.pipeline import Pipeline

_LAST = 3


class PreparedCall:
    """Calls that differ in their last three arguments. Packing them in full costs three times as much."""

    __slots__ = ("call", "head")

    call: Callable[[bytes, ReplyReceiver, float], None]
    """Run the script; `answer` gets the reply. `packed`: `head` and the rest. `retry_s`: see `RedisConnection.call`."""

    def __init__(
        self,
        pipeline: Pipeline,
        script: LuaScript,
        keys: Sequence[Argument],
        guard: Sequence[Argument],
        first: Sequence[Argument],
        misplaced: bytes | None = None,
        several: LuaScript | None = None,
    ) -> None:
        arguments = len(first) + _LAST
        words = ("EVALSHA", script.digest, len(keys) + len(guard), *keys, *guard)
        alone = b"*%d\r\n%s" % (len(words) + arguments, _packed(words))
        count = len(keys), arguments
        combination = Combination(several, alone, _packed(keys), _packed(guard), count)
        self.head = _packed(first)
        self.call = partial(pipeline.send, script, misplaced, combination)


def _packed(words: Sequence[Argument]) -> bytes:
    """Words as they stand within a packed command."""
    packed = pack(tuple(words))
    return packed[packed.index(b"\r\n") + 2 :]
