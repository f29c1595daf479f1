"""A script call with fixed first arguments, which are packed once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from selfhost_transport.redis_io.databases import LuaScript
from selfhost_transport.redis_io.link import Argument, pack
from selfhost_transport.redis_io.pipeline import Answer, Pipeline


class PreparedCall:
    """Calls that differ in their last three arguments. Packing them in full costs three times as much."""

    __slots__ = ("call", "head")

    call: Callable[[bytes, Answer, float], None]
    """Run the script; `answer` gets the reply. `packed`: `head` and the rest. `retry_s`: see `RedisConnection.call`."""

    def __init__(
        self,
        pipeline: Pipeline,
        script: LuaScript,
        keys: Sequence[Argument],
        first: Sequence[Argument],
        misplaced: bytes | None = None,
    ) -> None:
        words = ("EVALSHA", script.digest, len(keys), *keys, *first)
        packed = pack(words)
        self.head = b"*%d%s" % (len(words) + 3, packed[packed.index(b"\r\n") :])
        self.call = partial(pipeline.send, script, misplaced)
