"""Sends and cancels made through the plain HTTP API: the same messages that an SDK would publish."""

from __future__ import annotations

import uuid

from gateway.auth.authenticator import Credential
from gateway.commands.commands import Done
from gateway.commands.publishing import PublishContext, Sender, prepare
from gateway.commands.turn_commands import (
    CANCEL_ALL,
    CANCEL_CLIENT_ID,
    CANCEL_OWN,
    CANCEL_RUN_ID,
    TURN_POLICY,
)
from gateway.http_api.models import CancelIn, CancelOut, FilterIn, SendIn, SendOut, TextPartIn
from gateway.services import Services
from selfhost_transport.errors import Conflict, InvalidArgument, ServiceError
from selfhost_transport.store.turn_store import Policy
from selfhost_transport.turns import headers as h
from selfhost_transport.turns.inputs import InputIds, user_message
from selfhost_transport.turns.ui import FilePart, TextPart
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.serial import format_position

_BY_HEADER = {"turn_id": h.RUN_ID, "input_id": h.INPUT_CODEC_MESSAGE_ID, "client_id": CANCEL_CLIENT_ID}


class TurnCalls:
    """What one caller asks of one session's turns."""

    def __init__(self, services: Services, credential: Credential, session: str) -> None:
        self._services = services
        self._credential = credential
        self._session = session
        self._rules = services.rules_for(session)
        if self._rules is None:
            raise InvalidArgument(
                "no worker answers in this session's namespace: name an `agent` in its [[namespaces]]; agents of other SDKs "
                "are asked by messages on the channel"
            )

    async def send(self, body: SendIn) -> SendOut:
        """Accept a message and its turn."""
        client_id = self._credential.identity.stamp(body.client_id)
        message_id = body.id or str(uuid.uuid4())
        # Derived from the id, so that a repeat of the send is the same send (P5).
        ids = InputIds(message_id, str(uuid.uuid5(uuid.NAMESPACE_OID, message_id)))
        messages = user_message(
            _parts(body), ids, client_id=client_id, parent=body.parent, fork_of=body.fork_of
        )
        for message in messages:
            message.client_id = client_id
            _transport(message).update(_policy_headers(body))
        # Without a parent it follows the newest message; with null it is a first one.
        done = await self._run(messages, anchor="parent" not in body.model_fields_set)
        turn = done.result.turn
        if turn is None:
            raise ServiceError("the message was stored, but no turn was started")
        return SendOut(
            turn_id=turn.id,
            message_id=message_id,
            status=turn.status,
            position=format_position(done.position, done.epoch),
            serials=done.result.serials,
            repeated=turn.repeated,
            interrupted=list(turn.interrupted),
            waiting=turn.waiting,
        )

    async def give(self, messages: list[Message]) -> Done:
        """Give an input to a turn that exists."""
        return await self._run(messages)

    async def give_answer(self, message: Message, client_id: str | None) -> None:
        """Answer a call. If another client was first, that answer counts, and the turn continues with it."""
        message.client_id = client_id
        try:
            await self.give([message])
        except Conflict:
            return

    async def start(self, messages: list[Message], client_id: str | None) -> str:
        """Start a turn as the namespace says; its id."""
        for message in messages:
            message.client_id = client_id
        receipt = (await self._run(messages)).result.turn
        if receipt is None:
            raise ServiceError("the message was stored, but no turn was started")
        return receipt.id

    async def start_newest(self, messages: list[Message], client_id: str | None) -> str:
        """Start a turn for a page that shows one answer at a time; its id."""
        policy = self._one_at_a_time(client_id)
        for message in messages:
            _transport(message).update(policy)
        return await self.start(messages, client_id)

    def _one_at_a_time(self, client_id: str | None) -> dict[str, str]:
        """Where the namespace lets turns run side by side, the newest wins."""
        if self._rules is None or self._rules.policy is not Policy.CONCURRENT:
            return {}
        # An anonymous caller has no turns of its own: it acts for all clients of the chat.
        for_all = {} if client_id is not None else {CANCEL_ALL: "true"}
        return {TURN_POLICY: Policy.INTERRUPT.value, **for_all}

    async def cancel(self, body: CancelIn) -> CancelOut:
        """End the turns that a filter names."""
        transport = {h.EVENT_ID: str(uuid.uuid4()), **_cancel_headers(body)}
        message = Message(name=h.AI_CANCEL, client_id=body.acting_client_id, extras=h.make_extras(transport))
        receipt = (await self._run([message])).result.cancel
        if receipt is None:
            raise ServiceError("the cancel was not understood")
        return CancelOut(
            position=receipt.position,
            matched=list(receipt.matched),
            already_ended=list(receipt.already_ended),
            denied=list(receipt.denied),
            hook_failed=list(receipt.hook_failed),
            undecided=list(receipt.undecided),
        )

    async def _run(self, messages: list[Message], *, anchor: bool = True) -> Done:
        context = PublishContext(
            session=self._session,
            sender=Sender(self._credential),
            rules=self._rules,
            max_size=self._services.settings.gateway.max_message_size,
            id_base=str(uuid.uuid4()),
            limits=self._services.limits,
            anchor=anchor,
        )
        return await self._services.executor.run(prepare(context, messages))


def _parts(body: SendIn) -> list[TextPart | FilePart]:
    if body.parts is None:
        return [TextPart(body.text or "")]
    return [
        TextPart(part.text) if isinstance(part, TextPartIn) else FilePart(part.url, part.media_type)
        for part in body.parts
    ]


def _policy_headers(body: SendIn) -> dict[str, str]:
    if body.policy is None:
        if body.interrupts is not None:
            raise InvalidArgument("interrupts needs the policy `interrupt`")
        return {}
    headers = {TURN_POLICY: body.policy.value}
    if body.policy is Policy.INTERRUPT and body.interrupts is not None:
        if body.interrupts.input_id is not None:
            raise InvalidArgument("a send interrupts turns by turnId, own, clientId or all")
        named = _cancel_headers(body.interrupts)
        turn = named.pop(h.RUN_ID, None)
        headers |= named if turn is None else {CANCEL_RUN_ID: turn}
    return headers


def _cancel_headers(wanted: FilterIn) -> dict[str, str]:
    if wanted.own:
        return {CANCEL_OWN: "true"}
    if wanted.all:
        return {CANCEL_ALL: "true"}
    values = {header: getattr(wanted, name) for name, header in _BY_HEADER.items()}
    return {header: value for header, value in values.items() if value is not None}


def _transport(message: Message) -> dict[str, str]:
    assert message.extras is not None
    transport: dict[str, str] = message.extras["ai"]["transport"]
    return transport
