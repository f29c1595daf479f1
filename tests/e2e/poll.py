"""A codec of an application's own and an agent that speaks it (SDK-5): a poll, whose answers are votes.

Run by `selfhost-transport worker tests.e2e.poll:worker`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent_worker import Turn, Worker
from agent_worker.output.message import OutputChunk
from selfhost_transport.errors import InvalidArgument
from selfhost_transport.turns import chunks as p
from selfhost_transport.turns import headers as h
from selfhost_transport.turns.codecs import UIMessageCodec
from selfhost_transport.turns.context import TurnContext
from selfhost_transport.turns.headers import Headers
from selfhost_transport.turns.outputs import OutputMessages, OutputOperation
from selfhost_transport.turns.record import Record
from selfhost_transport.turns.ui import UIMessage
from selfhost_transport.turns.values import Absent, Json

VOTE = "vote"


@dataclass(slots=True, frozen=True)
class Poll(UIMessage):
    """A message with the votes that were cast in it, by what was voted for."""

    votes: Mapping[str, int] = field(default_factory=dict)


class PollEncoder(OutputMessages):
    """A vote is a message of its own; the brackets around answers are left out."""

    def encode(self, chunk: p.Chunk) -> list[OutputOperation]:
        """One operation per vote."""
        match chunk:
            case p.Native():
                return [self.discrete({h.KIND: VOTE, "for": str(chunk.event["for"])})]
            case p.Start() | p.StartStep() | p.FinishStep() | p.Finish():
                return []
            case _:
                raise InvalidArgument("only votes count")


class PollCodec(UIMessageCodec):
    """Polls beside messages as they are."""

    @property
    def name(self) -> str:
        return "poll"

    def chunk_from_json(self, value: Mapping[str, Any]) -> p.Chunk:
        return p.Native(value)

    def encoder(
        self, ctx: TurnContext, codec_message_id: str, step_start_serial: str, steer_ids: Sequence[str] = ()
    ) -> PollEncoder:
        return PollEncoder(ctx, codec_message_id, step_start_serial, steer_ids)

    def decode_output(self, headers: Headers, payload: Json | Absent) -> list[p.Chunk]:
        if headers.kind == VOTE:
            return [p.Native({"for": headers.field("for") or ""})]
        return super().decode_output(headers, payload)

    def message(self, message: UIMessage, records: Iterable[Record]) -> Poll:
        cast = [chunk for record in records for chunk in record.chunks if isinstance(chunk, p.Native)]
        votes = Counter(str(vote.event["for"]) for vote in cast)
        return Poll(message.id, message.role, message.parts, message.metadata, dict(votes))


worker = Worker()


@worker.agent("assistant", codec=PollCodec())
async def voters(turn: Turn) -> AsyncIterator[OutputChunk]:
    """One vote per word, and one more for what won the poll before."""
    earlier = [said.message for said in await turn.messages() if isinstance(said.message, Poll)]
    for word in (await turn.text()).split():
        yield {"for": word}
    for poll in earlier:
        if poll.votes:
            yield {"for": max(poll.votes, key=lambda name: poll.votes[name])}
