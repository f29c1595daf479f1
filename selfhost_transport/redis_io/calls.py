"""Calls on their way to a server and back, and who gets their replies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from selfhost_transport.errors import TransportError
from selfhost_transport.redis_io.databases import LuaScript


class ReplyReceiver(Protocol):
    """Receives a reply: a future, or a callback for many replies (ReplyCallback)."""

    def done(self) -> bool: ...  # noqa: D102

    def set_result(self, result: Any, /) -> None: ...  # noqa: D102

    def set_exception(self, exception: BaseException, /) -> None: ...  # noqa: D102


class ReplyCallback:
    """Calls a function with every reply or error, in the reading callback.

    The function must be quick and never raise. A future for each call would cost as much as the call.
    """

    __slots__ = ("notify",)

    def __init__(self, notify: Callable[[Any, BaseException | None], None]) -> None:
        self.notify = notify

    def done(self) -> bool:
        """There is always another reply."""
        return False

    def set_result(self, result: Any, /) -> None:
        """A reply came."""
        self.notify(result, None)

    def set_exception(self, exception: BaseException, /) -> None:
        """None came, or it was an error."""
        self.notify(None, exception)


class _NoCaller:
    """In the place of an answer that was given already: the reply that may still come must be taken in turn."""

    def done(self) -> bool:
        return True

    def set_result(self, result: Any, /) -> None: ...

    def set_exception(self, exception: BaseException, /) -> None: ...


NO_CALLER = _NoCaller()


class Combination:
    """What a call needs to travel with others of its script, as one call of `several` (`combined_calls.py`).

    Of the packed command: `alone` is what stands before its arguments when it travels alone; `keys` its keys, and
    `guard` the key more that a Cluster asks for, or nothing. `count`: how many keys and arguments a call has.
    """

    __slots__ = ("alone", "count", "guard", "keys", "several")

    def __init__(
        self, several: LuaScript | None, alone: bytes, keys: bytes, guard: bytes, count: tuple[int, int]
    ) -> None:
        self.several = several
        self.alone = alone
        self.keys = keys
        self.guard = guard
        self.count = count


ALONE = Combination(None, b"", b"", b"", (0, 0))
"""Of a call that always travels alone, and is packed as a whole."""


class PendingCall:
    """One command in flight. `until`: monotonic time at which it ends, whatever the state of the connection."""

    __slots__ = (
        "again", "combination", "combined", "misplaced", "packed", "refused", "reply", "script", "until",
    )  # fmt: skip

    def __init__(
        self,
        packed: bytes,
        script: LuaScript | None,
        reply: ReplyReceiver,
        until: float,
        again: bool,
        misplaced: bytes | None = None,
        combination: Combination = ALONE,
    ) -> None:
        # The arguments; the whole command of a call that is always ALONE.
        self.packed = packed
        self.combination = combination
        # How many calls the server got as one, of which this is the first; 0: it went alone, or is not the first.
        self.combined = 0
        self.script = script
        self.reply = reply
        self.until = until
        # Whether it may be sent a second time after a connection was lost with the reply outstanding.
        self.again = again
        # The reply that says that an earlier call has not been carried out.
        self.misplaced = misplaced
        # What the server said when it last refused the call.
        self.refused: TransportError | None = None

    @property
    def writes(self) -> bool:
        """Whether it may change a session; single commands do not."""
        return self.script is not None and not self.script.reads

    @property
    def packed_alone(self) -> bytes:
        """The whole command."""
        return self.combination.alone + self.packed

    def go_alone(self) -> None:
        """It may have been carried out already: from now on it is never sent with others, whose script it would lengthen."""
        self.packed, self.combination = self.packed_alone, ALONE

    def fail(self, error: TransportError) -> None:
        """End it, unless it has ended."""
        if not self.reply.done():
            self.reply.set_exception(error)
