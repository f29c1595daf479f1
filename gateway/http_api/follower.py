"""One response that follows a turn: alone where it has to, in step with others that were sent the same where it can."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from gateway.auth.authenticator import Credential
from gateway.http_api.pull_outlet import patience_s, refusal
from gateway.http_api.reader import require_turn
from gateway.http_api.session_tail import (
    Enough,
    InStep,
    SessionTail,
    TailReader,
    TurnOutput,
    join_tail,
    leave_tail,
)
from gateway.services import Services
from selfhost_transport.errors import CapabilityError, TransportError
from selfhost_transport.turns.tree import SessionTree
from selfhost_transport.wire.actions import Flag
from selfhost_transport.wire.capability import Operation

KEEPALIVE: Final = b": keep-alive\n\n"


class Follower:
    """Start it, then `stream`, and release it whatever happens."""

    def __init__(self, services: Services, credential: Credential, session: str, enough: Enough) -> None:
        self.session = session
        self._services = services
        self._credential = credential
        self._hidden = services.hidden_from(credential, session)
        self._reader = TailReader(enough)
        self._tail: SessionTail | None = None
        self.ended_with: TurnOutput | None = None

    @property
    def tail(self) -> SessionTail:
        """What it reads."""
        assert self._tail is not None, "it was not started"
        return self._tail

    @property
    def tree(self) -> SessionTree:
        """The session, as far back as it was asked for."""
        return self.tail.tree

    async def start(self) -> None:
        """Read. Raises CapabilityError without the right to subscribe, StoreUnavailable, RateLimited."""
        may = self._credential.capability
        may.require(Operation.SUBSCRIBE, self.session)
        try:
            may.require(Operation.HISTORY, self.session)
            reads_back = True
        except CapabilityError:
            reads_back = False
        await self._services.admit_stream(self._credential, self.session, self._reader.outlet)
        try:
            self._tail = await join_tail(
                self._services, self.session, self._hidden, self._reader, reads_back=reads_back
            )
        except BaseException:
            self._services.release_stream(self._reader.outlet)
            raise
        self._services.board.count(self.session, None, Flag.SUBSCRIBE, self._credential.identity.client_id)

    async def release(self) -> None:
        """Stop reading; once is enough."""
        if self._tail is None:
            return
        self._tail = None
        self._reader.outlet.close()
        self._services.release_stream(self._reader.outlet)
        self._services.board.count(self.session, Flag.SUBSCRIBE, None, self._credential.identity.client_id)
        leave_tail(self._services, self._hidden, self._reader)

    async def need(self, enough: Enough) -> None:
        """Read further back. Raises StoreUnavailable."""
        self._reader.enough = enough
        await self.tail.read_back(enough)

    async def stream(self, output: TurnOutput) -> AsyncIterator[bytes]:
        """Everything that is to be sent, as it comes.

        In the end `ended_with` is how far that went; None: the gateway stops. Raises the TransportError of credentials
        that have expired, ContinuityLost once the session has lost the turn,
        and SessionErased.
        """
        self.ended_with = None
        tail, outlet = self.tail, self._reader.outlet
        while not outlet.ended:
            if not tail.is_quiet:
                self._require_turn(output)
                written = output.sync(tail.tree, tail.position)
                is_last = output.must_restart or output.is_over(tail.tree)
                if is_last and not output.must_restart:
                    written += output.close(tail.tree)
                step = None if is_last else tail.in_step(output)
                if step is not None:
                    step.members[self._reader] = None
                    self._reader.step = step
                if written:
                    yield written
                if is_last:
                    self.ended_with = output
                    return
                if step is not None:
                    async for written in self._along(step):
                        yield written
                    if step.is_lost:
                        self._require_turn(step.output)
                    if self._reader.left is None:
                        if step.is_over or step.output.must_restart:
                            self.ended_with = step.output
                        return
                    output, self._reader.left = self._reader.left, None
                    continue
            await outlet.take(patience_s(self._credential))
            self._check()
            if outlet.waited_in_vain:
                yield KEEPALIVE

    async def _along(self, step: InStep) -> AsyncIterator[bytes]:
        """What those in step are sent, until that ends or this one falls behind."""
        outlet = self._reader.outlet
        while True:
            taken = await outlet.take(patience_s(self._credential))
            self._check()
            if taken:
                yield taken[0] if len(taken) == 1 else b"".join(taken)
            elif outlet.waited_in_vain:
                yield KEEPALIVE
            if self._reader.left is not None:
                return
            if step.is_done or outlet.ended:
                # What was put while the last was written.
                if rest := await outlet.take(0):
                    yield b"".join(rest)
                return

    def _require_turn(self, output: TurnOutput) -> None:
        if self.tail.ended_by is not None:
            raise TransportError.from_info(self.tail.ended_by)
        require_turn(self.tail.tree, output.turn_id)

    def _check(self) -> None:
        refused = refusal(self._services, self._credential)
        if refused is not None:
            raise TransportError.from_info(refused)
