"""Messages that people send into a turn that is running, and which pass of it answers them (STE-1 to STE-8)."""

from __future__ import annotations

from agent_worker.agent.conversation import Conversation
from agent_worker.agent.reading import Reading, Wanted
from selfhost_transport.store.turn_pauses import TurnPauses
from selfhost_transport.store.turn_store import Lease
from selfhost_transport.turns.tree import SessionTree


class Steering:
    """The steers of one attempt.

    A steer counts as consumed once it was taken from the store: by reading the conversation for the model, or
    between two passes. The store ends a turn only when none is left, so that none is lost at the finish (STE-8).
    """

    def __init__(self, pauses: TurnPauses, lease: Lease, conversation: Conversation) -> None:
        self._pauses = pauses
        self._lease = lease
        self._conversation = conversation
        # Those that earlier passes answered, whether or not any output came of it.
        self._answered: set[str] = set()
        # Codec message ids of those that the present pass answers: its output is stamped with them.
        self.ids: tuple[str, ...] = ()

    async def consume(self, wanted: Wanted) -> Reading:
        """Take what waits, for the present pass to answer, and read the branch. Raises LeaseLost, as `Conversation.read`.

        Takes before it reads: one that comes in between is answered too, and asked for once more at the end. The
        history knows also those that a lost worker had taken.
        """
        await self._pauses.drain(self._lease)
        reading = await self._conversation.read(wanted)
        self._note(reading.tree)
        return reading

    async def look(self) -> None:
        """Take what waits, for the present pass to answer, without reading the conversation. Raises LeaseLost."""
        await self._pauses.drain(self._lease)
        self._note(await self._conversation.own_tree())

    async def next_pass(self) -> bool:
        """End the present pass; whether another one has to answer what came since."""
        self._answered.update(self.ids)
        self.ids = ()
        await self.look()
        return bool(self.ids)

    def _note(self, tree: SessionTree) -> None:
        node = tree.run_node(self._lease.turn_id)
        if node is not None:
            answered = self._answered | (node.answered_steers() - set(self.ids))
            trigger = self._conversation.trigger
            self.ids = tuple(steer for steer in node.steers(trigger) if steer not in answered)
