"""What was said in the session, as the model should see it; read from the history only when asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from agent_worker.agent.reading import Reading, Wanted, YieldTimer
from agent_worker.agent.suspension import Answer, answers_in
from agent_worker.output.left_behind import LeftBehind, left_behind
from selfhost_transport.errors import ConversationTooLong
from selfhost_transport.store.entries import Created, unpack_entry
from selfhost_transport.store.history import HistoryReader, Page, Query
from selfhost_transport.store.message_states import completed
from selfhost_transport.store.turn_store import Lease
from selfhost_transport.turns import headers as h
from selfhost_transport.turns import ui
from selfhost_transport.turns.branch_reader import BranchReader
from selfhost_transport.turns.chunks import TextStart
from selfhost_transport.turns.client_input import ClientInput, client_input_of
from selfhost_transport.turns.codec import Codec
from selfhost_transport.turns.codecs import UI_MESSAGES, codec_named, codec_of
from selfhost_transport.turns.context import TurnContext
from selfhost_transport.turns.inputs import OPENAI_INPUTS, UI_INPUTS
from selfhost_transport.turns.prompt import PartialAnswers, PromptMessage, build_prompt
from selfhost_transport.turns.seed import joins_chain, with_stored
from selfhost_transport.turns.tree import SessionTree
from selfhost_transport.turns.values import text_of
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.serial import Position, parse_position
from selfhost_transport.wire.sizes import data_size

MAX_INPUT_MESSAGES = 1000
MAX_MESSAGES = 200_000
"""How far back a conversation is read, in messages of the session; further is refused, never left out."""
MAX_BYTES = 256 * 1024 * 1024
"""The same in bytes of their data."""
# As the codecs name them.
_TEXT_PARTS = (UI_INPUTS.text_type, OPENAI_INPUTS.text_type)
PAGE = 200
# Messages among which the question that is answered again mostly is.
_NEAR = 8
SEEDED_PAGE = 100
"""The same where the application has most of it."""


class Conversation:
    """The session's history around one turn."""

    def __init__(
        self, history: HistoryReader, lease: Lease, context: TurnContext, codec: Codec | None = None
    ) -> None:
        # What messages are read and written in; None: see `choose_codec`.
        self._codec = codec or (codec_named(context.codec) if context.codec is not None else None)
        self._history = history
        self._lease = lease
        self._context = context
        self._input: list[Message] | None = None
        # Up to where retention has taken messages, known once the oldest page was read.
        self._truncated_at: Position | None = None

    @property
    def codec(self) -> Codec:
        """What the turn's messages are read and written in."""
        return self._codec or UI_MESSAGES

    async def choose_codec(self) -> None:
        """If the trigger does not show its sender's codec, use that of the answer to regenerate (section 8.9)."""
        target = self._context.msg_regenerate
        if self._codec is None and target is not None:
            tree = self._tree()
            async for page in self._pages(Query(limit=PAGE)):
                await self._apply(tree, page)
                if (node := tree.owner_of(target)) is not None:
                    self._codec = codec_of(node.records())
                    return

    @property
    def trigger(self) -> str:
        """The codec message id of what the present invocation answers."""
        return self._context.input_codec_message_id or ""

    async def input(self) -> Sequence[Message]:
        """The messages of the send that started the turn; they usually came with the lease."""
        lease = self._lease
        if self._input is None and (created := self._created()):
            self._input = completed(created, lease.epoch)
        if self._input is None:
            at = lease.input_position
            query = Query(limit=MAX_INPUT_MESSAGES, forwards=True, start_ms=at.ms, until=at, align=False)
            page = await self._history.page(lease.session, query)
            self._input = [message for message in page.messages if _position(message) == at]
        return self._input

    async def text(self) -> str:
        """The text parts of that send; where it asks nothing itself, those of the message it answers again.

        So does a regenerate, and a tool result that `useChat` sends as a fork (ai-transport section 8.11).
        """
        created = self._created()
        sent = created.messages if created else await self.input()
        parts = [text_of(message) for message in sent if _is_text(message)]
        if parts or any(_is_question(message) for message in sent):
            return "\n".join(parts)
        for last in (_NEAR, None):
            asked = [message for message in await self.messages(last=last) if message.role == h.ROLE_USER]
            if asked:
                return "\n".join(text_parts(asked[-1].message))
        return ""

    async def texts_of(self, steers: Sequence[str]) -> str:
        """The texts of messages sent into the turn, in their order."""
        tree = await self.own_tree()
        found = (tree.message(steer) for steer in steers)
        return "\n".join(text for message in found if message for text in text_parts(message.message))

    async def messages(
        self,
        partial_answers: PartialAnswers = PartialAnswers.KEEP,
        *,
        with_reasoning: bool = False,
        last: int | None = None,
    ) -> list[PromptMessage]:
        """The conversation along the selected branch, oldest first, the message to be answered last (BRA-11).

        Answers that were interrupted are kept and marked, unless `partial_answers` says otherwise (INT-25). What the
        model thought aloud is left out, unless asked for (COT-6). `last`: no more than so many, which also bounds what
        is read of a long session. Raises ConversationTooLong beyond 200,000 messages of the session, or 256 MiB.
        """
        wanted = Wanted(partial_answers, with_reasoning=with_reasoning, last=last)
        return (await self.read(wanted)).prompt

    async def read(self, wanted: Wanted) -> Reading:
        """The conversation as it is now. Raises ConversationTooLong; ResumePointLost for a seed that does not reach it."""
        reading = await (self._read_branch(wanted) if wanted.seed is None else self._read_behind(wanted))
        return (
            reading if wanted.with_reasoning else replace(reading, prompt=await self._spoken(reading.prompt))
        )

    async def _read_branch(self, wanted: Wanted) -> Reading:
        reader = BranchReader(
            self._lease.session,
            self.trigger,
            codec=self.codec,
            partial_answers=wanted.partial_answers,
            last=wanted.last,
        )
        pace = YieldTimer()
        async for page in self._pages(Query(limit=PAGE)):
            for message in reversed(page.messages):
                reader.apply(message)
                await pace.keep()
            while not reader.is_complete and reader.settle():
                await pace.keep()
            if reader.is_complete:
                break
            reader.end_page(is_last=page.next_cursor is None)
        return Reading(reader.tree, reader.prompt())

    async def _read_behind(self, wanted: Wanted) -> Reading:
        """As far back as the conversation is not in the seed (HYD-4)."""
        assert wanted.seed is not None
        tree = self._tree()
        async for page in self._pages(Query(limit=SEEDED_PAGE)):
            await self._apply(tree, page)
            self._truncated_at = page.truncated_at
            prompt = build_prompt(tree, self.trigger)
            if joins_chain(wanted.seed, tree, self.trigger, prompt):
                break
        prompt = build_prompt(tree, self.trigger, partial_answers=wanted.partial_answers)
        prompt = with_stored(wanted.seed, tree, self.trigger, prompt, self._truncated_at)
        return Reading(tree, prompt if wanted.last is None else prompt[max(0, len(prompt) - wanted.last) :])

    async def _spoken(self, prompt: list[PromptMessage]) -> list[PromptMessage]:
        pace, found = YieldTimer(), []
        for said in prompt:
            found.append(_without_reasoning(said))
            await pace.keep()
        return found

    async def own_tree(self) -> SessionTree:
        """What belongs to this turn, however long the session is: everything since the send that started it."""
        tree, pace = self._tree(), YieldTimer()
        for message in await self._since_send():
            tree.apply(message)
            await pace.keep()
        return tree

    async def client_input(self) -> ClientInput:
        """What the client that caused this invocation handed over beside the conversation."""
        fresh = self._context.invocation == 0
        return client_input_of(await self.input() if fresh else await self._since_send())

    async def answers(self) -> list[Answer]:
        """What people answered to this turn's calls, oldest first."""
        node = (await self.own_tree()).run_node(self._lease.turn_id)
        return answers_in(node) if node is not None else []

    async def partial_text(self) -> str:
        """The text that the attempt before this one had written when its worker was lost (REC-8)."""
        texts: dict[str, list[str]] = {}
        for message in await self._since_send():
            headers = h.read_headers(message)
            if headers is None or message.name != h.AI_OUTPUT or headers.run_id != self._lease.turn_id:
                continue
            attempt = headers.get(h.STEP_START_SERIAL)
            start = self.codec.decode_stream_start(headers) if headers.is_stream else None
            if attempt and headers.get(h.STEP_ID) == self._context.step_id and isinstance(start, TextStart):
                texts.setdefault(attempt, []).append(str(message.data or ""))
        if not self._lease.continued:
            texts.pop(self._lease.step_start_serial, None)
        return "".join(texts[max(texts)]) if texts else ""

    async def left_behind(self) -> LeftBehind | None:
        """What the lost attempt that this one continues left in the session."""
        return left_behind(await self._since_send(), self.codec, self._lease.step_start_serial)

    def _created(self) -> Created | None:
        """The send that started the turn, where it came with the lease."""
        lease = self._lease
        entry = unpack_entry(lease.input_position, lease.send) if lease.send else None
        return entry if isinstance(entry, Created) else None

    async def _since_send(self) -> list[Message]:
        """What may be of this turn, oldest first: nothing that other turns have written meanwhile."""
        query = Query(limit=PAGE, forwards=True, start_ms=self._lease.input_position.ms)
        own = (None, self._lease.turn_id)
        return [
            message
            async for page in self._pages(query)
            for message in page.messages
            if (headers := h.read_headers(message)) is not None and headers.run_id in own
        ]

    async def _pages(self, query: Query) -> AsyncIterator[Page]:
        """Page after page. Raises ConversationTooLong beyond the limits of one read."""
        messages = data = 0
        while True:
            page = await self._history.page(self._lease.session, query)
            yield page
            if page.next_cursor is None:
                return
            messages += len(page.messages)
            data += sum(data_size(message.data) for message in page.messages)
            if messages >= MAX_MESSAGES or data >= MAX_BYTES:
                raise ConversationTooLong(
                    f"{messages} messages of the session with {data}bytes were read, and the conversation is longer still; "
                    "ask for its end with messages(last=…), or seed it from where it is stored"
                )
            query = replace(query, cursor=page.next_cursor)

    async def _apply(self, tree: SessionTree, page: Page) -> None:
        pace = YieldTimer()
        for message in reversed(page.messages):
            tree.apply(message)
            await pace.keep()

    def _tree(self) -> SessionTree:
        return SessionTree(self._lease.session, self.codec)


def text_parts(message: ui.UIMessage) -> list[str]:
    """The texts of a message, without its reasoning and tools."""
    return [part.text for part in message.parts if isinstance(part, ui.TextPart)]


def _without_reasoning(said: PromptMessage) -> PromptMessage:
    kept = tuple(part for part in said.message.parts if not isinstance(part, ui.ReasoningPart))
    return replace(said, message=replace(said.message, parts=kept))


def _position(message: Message) -> Position:
    return parse_position(message.serial or "")[0]


def _is_question(message: Message) -> bool:
    headers = h.read_headers(message)
    return headers is not None and headers.kind == "user-message"


def _is_text(message: Message) -> bool:
    headers = h.read_headers(message)
    return headers is not None and headers.kind == "user-message" and headers.field("partType") in _TEXT_PARTS
