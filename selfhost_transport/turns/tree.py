"""The conversation tree of a session, built from deliveries in any order (protocol section 7; SES-4).

`SessionTree.apply` takes messages as they were delivered live or read from history. The result depends on the set
of messages only, not on order, paging or repetition. An append costs its own length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from selfhost_transport.turns import decoder as d
from selfhost_transport.turns import headers as h
from selfhost_transport.turns.cancels import Cancel
from selfhost_transport.turns.chunks import Chunk
from selfhost_transport.turns.codec import Codec
from selfhost_transport.turns.codecs import UI_MESSAGES
from selfhost_transport.turns.events import (
    CancelSeen,
    ChunkReceived,
    MessageChanged,
    OutputReplaced,
    Promoted,
    StructureChanged,
    TreeEvent,
    TurnChanged,
)
from selfhost_transport.turns.headers import Headers
from selfhost_transport.turns.nodes import Node, NodeKind
from selfhost_transport.turns.record import Record, TextBuffer
from selfhost_transport.turns.records import read_input, read_output
from selfhost_transport.turns.requests import Trigger, Triggers
from selfhost_transport.turns.runs import RunInfo, RunState
from selfhost_transport.turns.ui import ConversationMessage
from selfhost_transport.turns.values import text_of
from selfhost_transport.wire.actions import MessageAction
from selfhost_transport.wire.message import Message

_STEP_MESSAGES: Final = frozenset({h.AI_STEP_START, h.AI_STEP_END})
# Messages that make a run a node; the other life-cycle messages only tell about one (section 7.1).
_SHOWING: Final = frozenset({h.AI_RUN_START, h.AI_STEP_START})


class SessionTree:
    """All nodes and turns of a session.

    With `session`, the name the turn ids of this service derive from, inputs that no agent has taken up yet are
    reported as pending turns (TRN-3).
    """

    def __init__(self, session: str | None = None, codec: Codec = UI_MESSAGES) -> None:
        self.session = session
        self.codec = codec
        # Grows whenever the visible list of any view may have changed.
        self.structure_version = 0
        self._nodes: list[Node] = []
        self._is_sorted = True
        self._runs: dict[str, Node] = {}
        self._records: dict[str, tuple[Node, Record]] = {}
        # Which node a codec-message-id belongs to.
        self._owners: dict[str, Node] = {}
        # Runs by the trigger they mention: where the trigger itself is not known, it resolves to the run.
        self._triggered: dict[str, Node] = {}
        self._requests = Triggers(session)
        self._open: dict[str, RunState] = {}
        self._sends = 0
        # Serial of the last selection for all readers, by the message at the branch's head (BRA-7).
        self.chosen_for_all: dict[str, str] = {}
        # Cancels seen, for runs that become known later.
        self._cancels: list[Cancel] = []

    # Taking deliveries

    def apply(self, message: Message) -> list[TreeEvent]:
        """Take one delivery: create, append, update or delete, live or from history.

        Unknown messages change nothing. A message that was deleted keeps its place, and what was said after it.
        """
        serial = message.serial
        if serial is None:
            return []
        known = self._records.get(serial)
        if known is not None:
            return self._apply_again(known[0], known[1], message)
        headers = h.read_headers(message)
        if headers is None or message.action in (MessageAction.META, MessageAction.SUMMARY):
            return []
        return self._apply_new(serial, message, headers)

    def insert_optimistic(self, messages: Sequence[Message]) -> list[TreeEvent]:
        """Show our own inputs before the service confirms them; echoes are matched by id (OPT-1, OPT-2)."""
        events: list[TreeEvent] = []
        for message in messages:
            headers = h.read_headers(message)
            if headers is not None and message.name == h.AI_INPUT:
                message = Message(
                    name=message.name, data=message.data, encoding=message.encoding,
                    client_id=message.client_id, extras=message.extras,
                )  # fmt: skip
                events += self._apply_input(message, headers)
        return events

    def remove_optimistic(self, event_id: str) -> list[TreeEvent]:
        """Take back a send that was refused (OPT-4)."""
        events: list[TreeEvent] = []
        for node in list(self._nodes):
            gone = node.discard(event_id)
            if not gone:
                continue
            if node.is_empty:
                self._remove(node)
            events.append(self._restructured())
        for trigger in self._requests.asked_by(event_id):
            events += self._withdraw(trigger)
        return events

    def forget(self, is_needed: Callable[[Node], bool], trigger: str) -> None:
        """Forget nodes, and all requests but that of `trigger`; for a reader that reads part of a history once.

        A message of a forgotten node that is applied later is taken for one of a new node.
        """
        self._nodes = [node for node in self._nodes if is_needed(node)]
        kept = set(self._nodes)
        self._runs = {key: node for key, node in self._runs.items() if node in kept}
        self._open = {key: run for key, run in self._open.items() if key in self._runs}
        self._records = {serial: known for serial, known in self._records.items() if known[0] in kept}
        self._owners = {key: node for key, node in self._owners.items() if node in kept}
        self._triggered = {key: node for key, node in self._triggered.items() if node in kept}
        self._requests.forget(trigger)

    # Reading

    def nodes(self) -> list[Node]:
        """Nodes in order (section 7.2)."""
        if not self._is_sorted:
            self._nodes.sort(key=lambda node: node.order)
            self._is_sorted = True
        return [node for node in self._nodes if node.is_shown]

    def node_of(self, codec_message_id: str | None) -> Node | None:
        """The node that owns a message or, when none is known, the run that answers it."""
        if codec_message_id is None:
            return None
        return self._owners.get(codec_message_id) or self._triggered.get(codec_message_id)

    def run_node(self, turn_id: str) -> Node | None:
        """The node of a turn's output."""
        return self._runs.get(turn_id)

    def owner_of(self, codec_message_id: str) -> Node | None:
        """The node that a message really is in."""
        return self._owners.get(codec_message_id)

    def has_whole(self, codec_message_id: str) -> bool:
        """Whether a message is known together with the beginning of its run, and so with its place."""
        node = self._owners.get(codec_message_id)
        return node is not None and (node.run is None or node.run.is_started)

    def message(self, codec_message_id: str) -> ConversationMessage | None:
        """One message as it is now."""
        node = self._owners.get(codec_message_id)
        state = node.messages.get(codec_message_id) if node else None
        return state.snapshot() if state else None

    def trigger(self, codec_message_id: str) -> Trigger | None:
        """The input of this id that asked for a turn."""
        return self._requests.trigger(codec_message_id)

    def turn_of(self, codec_message_id: str) -> str | None:
        """The turn a message belongs to; of an input, the turn it started (CON-9)."""
        node = self._owners.get(codec_message_id)
        if node is None or node.run is None:
            node = self._triggered.get(codec_message_id)
        if node is not None and node.run is not None:
            return node.run.run_id
        trigger = self._requests.trigger(codec_message_id)
        return trigger.turn_id if trigger else None

    def turn(self, turn_id: str) -> RunInfo | None:
        """One turn as it is now, pending ones included."""
        node = self._runs.get(turn_id)
        if node is not None and node.run is not None:
            return node.run.info()
        return next((info for info in self._requests.pending() if info.run_id == turn_id), None)

    def turns(self) -> list[RunInfo]:
        """All turns known, in order, pending ones last."""
        runs = [node.run.info() for node in sorted(self._runs.values(), key=lambda n: n.order) if node.run]
        return [*runs, *self._requests.pending()]

    def active_turns(self) -> Mapping[str, set[str]]:
        """Turns that have not ended, by the client id of the owner and of the agent (INT-7, INT-8)."""
        found: dict[str, set[str]] = {}
        for turn_id, run in self._open.items():
            for client_id in {run.owner, run.agent_client_id}:
                if client_id:
                    found.setdefault(client_id, set()).add(turn_id)
        for info in self._requests.pending():
            if info.client_id:
                found.setdefault(info.client_id, set()).add(info.run_id)
        return found

    # A message that was seen before

    def _apply_again(self, node: Node, record: Record, message: Message) -> list[TreeEvent]:
        """A later version of a message; any other was seen already (sections 4 and 7.5)."""
        version = message.version.serial if message.version is not None else None
        if not version or version <= record.version:
            return []
        if message.action is MessageAction.DELETE or (
            message.action is MessageAction.UPDATE and (record.stream is None or record.deleted)
        ):
            return self._replaced(node, record, message)
        if record.stream is None or record.deleted:
            return []
        if message.action is MessageAction.APPEND:
            record.version = version
            delta = text_of(message)
            record.extend(delta)
            return self._grown(node, record, delta, h.read_headers(message))
        if message.action is MessageAction.UPDATE:
            record.version = version
            return self._updated(node, record, message)
        return []

    def _replaced(self, node: Node, record: Record, message: Message) -> list[TreeEvent]:
        """An update of a discrete message, or a deletion. The message keeps its place in the tree."""
        given = h.read_headers(message)
        headers = Headers(
            record.headers.transport, given.codec if given and given.codec else record.headers.codec
        )
        is_input = record.input is not None
        newer = read_input(message, headers) if is_input else read_output(message, headers, self.codec)
        record.version = message.version.serial if message.version is not None else record.version
        if newer is None:
            return []
        record.input, record.chunks, record.stream = newer.input, newer.chunks, newer.stream
        record.status, record.deleted = newer.status, newer.deleted
        node.refold()
        return self._refolded(node)

    def _updated(self, node: Node, record: Record, message: Message) -> list[TreeEvent]:
        """A full text: reported as a delta when it continues the known text, else the newest version wins."""
        text, headers = text_of(message), h.read_headers(message)
        before = str(record.stream)
        if text.startswith(before):
            delta = text[len(before) :]
            record.extend(delta)
            return self._grown(node, record, delta, headers)
        record.stream = TextBuffer(text)
        if headers is not None:
            record.headers, record.status = headers, headers.status
        node.refold()
        return self._refolded(node)

    def _grown(self, node: Node, record: Record, delta: str, headers: Headers | None) -> list[TreeEvent]:
        was_closed = record.is_closed
        if headers is not None:
            record.headers, record.status = headers, headers.status
        closing = record.is_closed and not was_closed
        chunks = node.grow(record, delta, closing=closing)
        if chunks is None:
            return self._refolded(node)
        return self._events_of(node, record, chunks) if chunks or closing else []

    # A message that is new

    def _apply_new(self, serial: str, message: Message, headers: Headers) -> list[TreeEvent]:
        name = message.name
        if name == h.AI_OUTPUT:
            return self._apply_output(serial, message, headers)
        if name == h.AI_INPUT:
            return self._apply_input(message, headers)
        if name in h.RUN_LIFECYCLE or name in _STEP_MESSAGES:
            return self._apply_lifecycle(serial, name or "", message, headers)
        if name == h.AI_CANCEL:
            return self._apply_cancel(serial, message, headers)
        if name == h.AI_RUN_QUEUED and headers.run_id is not None:
            return list(self._requests.queue(headers.run_id, serial))
        if name == h.AI_CANCEL_DENIED:
            return self._apply_denial(serial, headers)
        if name == h.AI_BRANCH_SELECTED and headers.codec_message_id is not None:
            known = self.chosen_for_all.get(headers.codec_message_id, "")
            self.chosen_for_all[headers.codec_message_id] = max(known, serial)
            return [self._restructured()]
        return []

    def _apply_output(self, serial: str, message: Message, headers: Headers) -> list[TreeEvent]:
        run_id, record = headers.run_id, read_output(message, headers, self.codec)
        if run_id is None or record is None:
            return []
        node, events = self._run(run_id, headers)
        events += self._observe(node, serial, message, headers)
        events += self._show(node, serial)
        if h.is_ephemeral(message):
            # Not in history, so it may not leave a trace in the tree (SES-4).
            return events + self._events_of(node, record, record.chunks)
        self._records[serial] = (node, record)
        return events + self._added(node, record)

    def _apply_input(self, message: Message, headers: Headers) -> list[TreeEvent]:
        record = read_input(message, headers)
        if record is None:
            return []
        events: list[TreeEvent] = []
        if headers.run_id is not None:
            node, events = self._run(headers.run_id, headers)
        else:
            events += self._requests.note(record, message, self._is_begun)
            if isinstance(record.input, d.RegenerateRequested):
                return events
            node = self._input_node(record, headers)
        return events + self._take_input(node, record)

    def _take_input(self, node: Node, record: Record) -> list[TreeEvent]:
        events: list[TreeEvent] = []
        if record.serial is None:
            node.is_shown = True
        else:
            if node.confirm(record.codec_message_id, record.headers.event_id):
                events.append(Promoted(record.codec_message_id))
            self._records[record.serial] = (node, record)
            events += self._show(node, record.serial)
        return events + self._added(node, record)

    def _apply_lifecycle(self, serial: str, name: str, message: Message, headers: Headers) -> list[TreeEvent]:
        run_id = headers.run_id
        if run_id is None:
            return []
        node, events = self._run(run_id, headers)
        run = node.run
        assert run is not None
        before = run.info(), run.canonical_attempts()
        if not run.add(serial, name, headers):
            return []
        events += self._observe(node, serial, message, headers)
        events += self._show(node, serial, is_shown=name in _SHOWING)
        if run.canonical_attempts() != before[1] and node.has_output_of(headers.get(h.STEP_ID)):
            node.refold()
            events += self._refolded(node)
        for cancel in self._cancels:
            self._note_cancel(node, cancel)
        return events + self._status_changed(run, before[0])

    def _apply_cancel(self, serial: str, message: Message, headers: Headers) -> list[TreeEvent]:
        cancel = Cancel.read(serial, headers, message.client_id)
        self._cancels.append(cancel)
        events: list[TreeEvent] = [
            CancelSeen(headers.run_id, headers.input_codec_message_id, message.client_id)
        ]
        for run in self._open.values():
            events += self._note_cancel(self._runs[run.run_id], cancel)
        return events

    def _apply_denial(self, serial: str, headers: Headers) -> list[TreeEvent]:
        if headers.run_id is None:
            return []
        node, events = self._run(headers.run_id, headers)
        run = node.run
        assert run is not None
        return [*events, TurnChanged(run.info())] if run.note_cancel(serial, denied=True) else events

    def _note_cancel(self, node: Node, cancel: Cancel) -> list[TreeEvent]:
        run = node.run
        if run is None or run.status.is_terminal or not cancel.names(run, node.serial):
            return []
        return [TurnChanged(run.info())] if run.note_cancel(cancel.serial) else []

    # Nodes

    def _run(self, run_id: str, headers: Headers) -> tuple[Node, list[TreeEvent]]:
        """The node of a run; made if it is new, out of the client fork it answers if there is one."""
        node = self._runs.get(run_id)
        if node is None:
            run = RunState(run_id)
            node = Node(NodeKind.RUN, run_id, run, self.codec)
            self._runs[run_id] = node
            self._open[run_id] = run
            self._nodes.append(node)
            self._is_sorted = False
        trigger = headers.input_codec_message_id
        return node, self._answered(node, trigger) if trigger is not None else []

    def _answered(self, node: Node, trigger: str) -> list[TreeEvent]:
        """An agent's message of this run mentions the trigger it answers."""
        earlier = self._triggered.get(trigger)
        if earlier is None or node.order < earlier.order:
            self._triggered[trigger] = node
        moved: list[TreeEvent] = [*self._requests.begun(trigger)]
        fork = self._owners.get(trigger)
        if fork is None or fork.kind is not NodeKind.FORK:
            return moved
        self._merge(fork, node)
        return [*moved, self._restructured()]

    def _merge(self, fork: Node, node: Node) -> None:
        node.absorb(fork)
        node.is_shown = True
        self._nodes.remove(fork)
        for known, record in list(self._records.values()):
            if known is fork and record.serial is not None:
                self._records[record.serial] = (node, record)
        self._owners.update({key: node for key, owner in self._owners.items() if owner is fork})
        self._is_sorted = False

    def _input_node(self, record: Record, headers: Headers) -> Node:
        """The node of a run-less input: an input, or a client fork (section 8.11)."""
        key = record.codec_message_id
        is_fork = headers.role != h.ROLE_USER
        node = self._owners.get(key)
        if node is None and is_fork:
            node = self._triggered.get(key)
        if node is None:
            node = Node(NodeKind.FORK if is_fork else NodeKind.INPUT, key, codec=self.codec)
            self._nodes.append(node)
            self._is_sorted = False
            self._sends += 1
            node.send_order = self._sends
        if node.kind is not NodeKind.RUN or is_fork:
            node.set_structure(headers)
        return node

    def _remove(self, node: Node) -> None:
        self._nodes.remove(node)
        for key in [key for key, owner in self._owners.items() if owner is node]:
            del self._owners[key]

    def _show(self, node: Node, serial: str, *, is_shown: bool = True) -> list[TreeEvent]:
        changed = node.saw(serial)
        self._is_sorted = self._is_sorted and not changed
        if is_shown and not node.is_shown:
            node.is_shown = changed = True
        return [self._restructured()] if changed and node.is_shown else []

    def _observe(self, node: Node, serial: str, message: Message, headers: Headers) -> list[TreeEvent]:
        run = node.run
        assert run is not None
        place = node.parent, node.fork_of, node.regenerates
        if not run.observe(serial, message.name or "", headers, message.client_id):
            return []
        moved = place != (node.parent, node.fork_of, node.regenerates)
        return [*([self._restructured()] if moved else []), TurnChanged(run.info())]

    # What changed

    def _added(self, node: Node, record: Record) -> list[TreeEvent]:
        before = len(node.messages)
        chunks = node.add(record)
        self._own(node, record)
        if chunks is None:
            return self._refolded(node)
        events: list[TreeEvent] = [self._restructured()] if len(node.messages) != before else []
        return events + self._events_of(node, record, chunks)

    def _own(self, node: Node, record: Record) -> None:
        self._owners[record.codec_message_id] = node
        if isinstance(record.input, d.ToolResolved | d.ToolFailed):
            for copy in record.input.seed:
                self._owners.setdefault(copy.codec_message_id, node)

    def _events_of(self, node: Node, record: Record, chunks: Iterable[Chunk]) -> list[TreeEvent]:
        turn_id = node.run.run_id if node.run else None
        events: list[TreeEvent] = [MessageChanged(record.codec_message_id, turn_id)]
        if turn_id is not None:
            trigger = record.headers.input_codec_message_id
            events += [ChunkReceived(turn_id, record.codec_message_id, trigger, chunk) for chunk in chunks]
        return events

    def _refolded(self, node: Node) -> list[TreeEvent]:
        turn_id = node.run.run_id if node.run else None
        events: list[TreeEvent] = [self._restructured()]
        if turn_id is not None:
            events.append(OutputReplaced(turn_id))
        return events + [MessageChanged(key, turn_id) for key in node.messages]

    def _restructured(self) -> StructureChanged:
        self.structure_version += 1
        return StructureChanged()

    def _status_changed(self, run: RunState, before: RunInfo) -> list[TreeEvent]:
        if run.status.is_terminal:
            self._open.pop(run.run_id, None)
        after = run.info()
        return [TurnChanged(after)] if after != before else []

    # Pending turns

    def _is_begun(self, trigger: Trigger) -> bool:
        return trigger.codec_message_id in self._triggered or trigger.turn_id in self._runs

    def _withdraw(self, trigger: Trigger) -> list[TreeEvent]:
        """A send that was never accepted is no turn."""
        if any(r.codec_message_id == trigger.codec_message_id for _, r in self._records.values()):
            return []
        self._requests.withdraw(trigger)
        return [self._restructured()]
