"""What was said in the session, as the model should see it; read from the history only when asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import replace

from agent_worker.agent.suspension import Answer, answers_in
from agent_worker.output.left_behind import LeftBehind, left_behind
from selfhost_transport.store.entries import Created, unpack_entry
from selfhost_transport.store.history import HistoryReader, Page, Query, completed
from selfhost_transport.store.turn_store import Lease
from selfhost_transport.turns import headers as h
from selfhost_transport.turns import ui
from selfhost_transport.turns.chunks import TextStart
from selfhost_transport.turns.codec import Codec
from selfhost_transport.turns.codecs import UI_MESSAGES, codec_named, codec_of
from selfhost_transport.turns.context import TurnContext
from selfhost_transport.turns.inputs import OPENAI_INPUTS, UI_INPUTS
from selfhost_transport.turns.prompt import PartialAnswers, PromptMessage, build_prompt
from selfhost_transport.turns.seed import Seed, joins_chain, with_stored
from selfhost_transport.turns.tree import SessionTree
from selfhost_transport.turns.values import text_of
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.serial import Position, parse_position

MAX_INPUT_MESSAGES = 1000
MAX_MESSAGES = 20_000
"""How far back a conversation is read, in messages of the session."""
# As the codecs name them.
_TEXT_PARTS = (UI_INPUTS.text_type, OPENAI_INPUTS.text_type)
PAGE = 500
SEEDED_PAGE = 100
"""The same where the application has most of it."""


class Conversation:
    """The session's history around one turn."""

    def __init__(
        self, history: HistoryReader, lease: Lease, context: TurnContext, codec: Codec | None = None
    ) -> None:
        # What messages are read and written in; None: see `settle_codec`.
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

    async def settle_codec(self) -> None:
        """Where the trigger does not tell its sender's codec, look at the answer it wants again (section 8.9)."""
        target = self._context.msg_regenerate
        if self._codec is None and target is not None:
            node = (await self.branch()).owner_of(target)
            self._codec = codec_of(node.records()) if node is not None else None

    @property
    def trigger(self) -> str:
        """The codec message id of what the present invocation answers."""
        return self._context.input_codec_message_id or ""

    async def input(self) -> Sequence[Message]:
        """The messages of the send that started the turn; they usually came with the lease."""
        lease = self._lease
        if self._input is None and (created := self._created()):
            self._input = completed(created, lease.series)
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
        asked = [message for message in await self.messages() if message.role == h.ROLE_USER]
        return "\n".join(text_parts(asked[-1].message)) if asked else ""

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
        is read of a long session.
        """
        tree = await self.branch(last=last)
        return self.prompt(tree, partial_answers, with_reasoning=with_reasoning, last=last)

    def prompt(
        self,
        tree: SessionTree,
        partial_answers: PartialAnswers,
        *,
        with_reasoning: bool,
        seed: Seed | None = None,
        last: int | None = None,
    ) -> list[PromptMessage]:
        """The same from a session that was read already. Raises SeamLost for a seed that does not reach it."""
        prompt = build_prompt(tree, self.trigger, partial_answers=partial_answers)
        if seed is not None:
            prompt = with_stored(seed, tree, self.trigger, prompt, self._truncated_at)
        if last is not None:
            prompt = prompt[max(0, len(prompt) - last) :]
        return prompt if with_reasoning else [_without_reasoning(said) for said in prompt]

    async def branch(self, *, seed: Seed | None = None, last: int | None = None) -> SessionTree:
        """The session as it is now, as far back as the branch goes, or its newest `last` messages.

        With a seed, as far back as the conversation is not in that (HYD-4).
        """
        if seed is not None:
            return await self._behind(seed)
        path = Path(self.trigger)
        found: list[Message] = []
        async for page in self._pages(Query(limit=PAGE)):
            found += page.messages
            if path.is_complete(page.messages, last):
                break
        return self._tree(reversed(found))

    async def own_tree(self) -> SessionTree:
        """What belongs to this turn, however long the session is: everything since the send that started it."""
        return self._tree(await self._since_send())

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

    async def _behind(self, seed: Seed) -> SessionTree:
        tree = self._tree(())
        async for page in self._pages(Query(limit=SEEDED_PAGE)):
            for message in reversed(page.messages):
                tree.apply(message)
            self._truncated_at = page.truncated_at
            if joins_chain(seed, tree, self.trigger, build_prompt(tree, self.trigger)):
                break
        return tree

    async def _since_send(self) -> list[Message]:
        """Oldest first."""
        query = Query(limit=PAGE, forwards=True, start_ms=self._lease.input_position.ms)
        return [message async for page in self._pages(query) for message in page.messages]

    async def _pages(self, query: Query) -> AsyncIterator[Page]:
        """As far as is read."""
        read = 0
        while read < MAX_MESSAGES:
            page = await self._history.page(self._lease.session, query)
            yield page
            read += len(page.messages)
            if page.next_cursor is None:
                return
            query = replace(query, cursor=page.next_cursor)

    def _tree(self, messages: Iterable[Message]) -> SessionTree:
        tree = SessionTree(self._lease.session, self.codec)
        for message in messages:
            tree.apply(message)
        return tree


class Path:
    """Follows the parents of a message towards the first one of its branch, in messages read newest first."""

    def __init__(self, start: str) -> None:
        self._parents: dict[str, str | None] = {}
        self._at: str | None = start
        self._length = 0

    def is_complete(self, page: Iterable[Message], last: int | None = None) -> bool:
        """Whether what was read, this page too, goes back to the first message, or `last` messages back."""
        for message in page:
            headers = h.read_headers(message)
            if headers is None:
                continue
            if headers.run_id is not None and message.name == h.AI_RUN_START:
                self._parents[_run_key(headers.run_id)] = headers.parent
            if headers.codec_message_id is not None:
                # What belongs to a run hangs where the run does; a steer does not say so itself.
                parent = headers.parent if headers.run_id is None else _run_key(headers.run_id)
                self._parents.setdefault(headers.codec_message_id, parent)
        # Taken out, so that a circle ends.
        while self._at is not None and self._at in self._parents:
            self._length += not self._at.startswith(_RUN)
            self._at = self._parents.pop(self._at)
        return self._at is None or (last is not None and self._length > last)


# No message has such an id: ids are texts without control characters.
_RUN = "\0run "


def _run_key(run_id: str) -> str:
    return f"{_RUN}{run_id}"


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
