"""From the messages a client sent to the operation they are: everything that can be checked without the store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gateway.auth.authenticator import Credential
from gateway.auth.rate_limits import Limits
from gateway.commands.commands import AppendToMessage, CancelTurns, ClientOperation, Publish, Replace, Submit
from gateway.commands.fork_seed import has_copies
from gateway.commands.turn_commands import TurnRules, read_signal
from selfhost_transport.errors import BadRequest, InvalidArgument, NotFound, Unauthorized
from selfhost_transport.store.appends import MessageAppend
from selfhost_transport.store.entries import MessageOperation as Edit
from selfhost_transport.store.entries import Ref
from selfhost_transport.store.names import joined
from selfhost_transport.store.turn_request import trigger_of
from selfhost_transport.turns import headers as h
from selfhost_transport.turns.headers import is_ephemeral
from selfhost_transport.turns.withholding import NOTHING, Hidden
from selfhost_transport.wire.actions import MessageAction
from selfhost_transport.wire.capability import Operation as Right
from selfhost_transport.wire.codes import Code
from selfhost_transport.wire.ids import assign_ids, client_id_base
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.serial import parse_position
from selfhost_transport.wire.sizes import check_publish_size

MAX_MESSAGES = 1000
_MUTATIONS = frozenset({MessageAction.UPDATE, MessageAction.DELETE, MessageAction.APPEND})
_MAX_ID = 128
_USER_CLAIM = "userClaim"


@dataclass(frozen=True, slots=True)
class Sender:
    """Who publishes, and over which connection (None: a plain request)."""

    credential: Credential
    connection_id: str | None = None

    def stamp(self, session: str, message: Message) -> Message:
        """The message with verified identity and none of what only the service may set (section 6.6)."""
        extras = message.extras
        claims = self.credential.claims
        claim = claims.user_claim(session) if claims is not None else None
        if claim is not None or (extras is not None and _USER_CLAIM in extras):
            extras = {name: value for name, value in (extras or {}).items() if name != _USER_CLAIM}
            if claim is not None:
                extras[_USER_CLAIM] = claim
        return Message(
            id=message.id,
            name=message.name,
            data=message.data,
            encoding=message.encoding,
            client_id=self.credential.identity.stamp(message.client_id),
            connection_id=self.connection_id,
            extras=extras,
        )


@dataclass(frozen=True, slots=True)
class PublishContext:
    """One frame or request: where to, by whom, under which rules.

    `id_base` is the default base of message ids; `repeat_id` recognises the same frame sent again ('' = never).
    """

    session: str
    sender: Sender
    rules: TurnRules | None
    max_size: int
    id_base: str
    limits: Limits | None = None
    repeat_id: str = ""
    ephemeral: bool = False
    # Modes granted to the attachment the frame was sent on; None where there is none.
    may_publish: bool | None = None
    # What the sender does not get of the session.
    hidden: Hidden = NOTHING
    # Whether an input without a parent follows the newest message; else it is a first one.
    anchor: bool = True


def prepare(context: PublishContext, messages: Sequence[Message]) -> ClientOperation:
    """The operation that `messages` ask for. Raises the TransportError to answer with; nothing is stored then."""
    if not messages:
        raise BadRequest("a publish needs at least one message", code=Code.INVALID_PUBLISH)
    if len(messages) > MAX_MESSAGES:
        raise BadRequest(
            f"too many messages in one publish: the limit is {MAX_MESSAGES}", code=Code.TOO_MANY_MESSAGES
        )
    check_publish_size(messages, context.max_size)
    operation = _read(context, messages)
    # A cancel is never refused by a rate limit (OPS-5).
    if context.limits is not None and not isinstance(operation, CancelTurns):
        sender = context.sender
        context.limits.admit(sender.credential, sender.connection_id, context.session)
    return operation


def _read(context: PublishContext, messages: Sequence[Message]) -> ClientOperation:
    actions = {message.action or MessageAction.CREATE for message in messages}
    if actions == {MessageAction.CREATE}:
        return _create(context, messages)
    if not actions <= _MUTATIONS:
        raise InvalidArgument("messages of one publish are all creates, or one update, delete or append")
    if len(messages) > 1:
        raise InvalidArgument("an update, delete or append is published alone")
    return _mutate(context, messages[0])


def _create(context: PublishContext, messages: Sequence[Message]) -> ClientOperation:
    session, sender = context.session, context.sender
    base = client_id_base(messages)
    stamped = [sender.stamp(session, message) for message in messages]
    ephemeral = _ephemeral(stamped) or context.ephemeral
    assign_ids(stamped, context.id_base)
    if context.rules is not None:
        if context.limits is not None and trigger_of(stamped) is not None:
            context.limits.admit_turn(context.rules.agent, session)
        stamped = [with_true_owner(message) for message in stamped]
        signal = read_signal(session, stamped, context.rules, sender.credential.capability)
        if isinstance(signal, CancelTurns):
            return signal
        # A send is a publish that starts a turn, and may carry other messages beside its input.
        _require_publish(context)
        if isinstance(signal, Submit):
            copies = context.hidden if any(map(has_copies, stamped)) else None
            return replace(signal, is_adrift=signal.is_adrift and context.anchor, copies=copies)
        if signal is not None:
            return signal
    else:
        _require_publish(context)
    return Publish(
        session=session,
        messages=tuple(stamped),
        publish_id=context.repeat_id if base is None else joined("client", _short(base)),
        ephemeral=ephemeral,
    )


def with_true_owner(message: Message) -> Message:
    """An input whose header `run-client-id` names its verified sender, regardless of what the sender wrote there."""
    headers = h.read_headers(message) if message.name == h.AI_INPUT else None
    named = None if headers is None else headers.get(h.RUN_CLIENT_ID)
    if message.extras is None or named in (None, message.client_id):
        return message
    ai = message.extras["ai"]
    transport = {name: value for name, value in ai["transport"].items() if name != h.RUN_CLIENT_ID}
    if message.client_id is not None:
        transport[h.RUN_CLIENT_ID] = message.client_id
    return replace(message, extras={**message.extras, "ai": {**ai, "transport": transport}})


def _mutate(context: PublishContext, message: Message) -> AppendToMessage | Replace:
    if not message.serial:
        raise InvalidArgument("an update, delete or append names the serial of its message")
    try:
        position, epoch, index = parse_position(message.serial)
    except InvalidArgument as error:
        raise NotFound("there is no message with this serial in this session") from error
    action = message.action or MessageAction.UPDATE
    guarded = context.rules is not None
    author = _required_author(context, action)
    if context.may_publish is False:
        raise Unauthorized(
            "the channel was attached without the publish mode", code=Code.PUBLISH_MODE_MISSING
        )
    version = message.version
    identity = context.sender.credential.identity
    edit = Edit(
        client_id=identity.stamp(version.client_id if version else None),
        description=version.description if version else None,
        metadata=version.metadata if version else None,
    )
    ref = Ref(position, index or 0)
    if action is MessageAction.APPEND:
        append = MessageAppend(
            message.data, message.encoding, message.extras, message.name, edit, context.repeat_id
        )
        return AppendToMessage(context.session, ref, epoch, (append,), author, guarded)
    change = Message(name=message.name, data=message.data, encoding=message.encoding, extras=message.extras)
    return Replace(context.session, ref, epoch, action, change, edit, context.repeat_id, author, guarded)


def _required_author(context: PublishContext, action: MessageAction) -> str | None:
    """Whose messages may be changed: None for any client's, else the caller's own (section 7.2)."""
    capability = context.sender.credential.capability
    delete = action is MessageAction.DELETE
    everyone = Right.MESSAGE_DELETE_ANY if delete else Right.MESSAGE_UPDATE_ANY
    own = Right.MESSAGE_DELETE_OWN if delete else Right.MESSAGE_UPDATE_OWN
    # Where an agent's workers write, what they wrote is theirs. A client that may not see a message may not change it either: its
    # headers, which say that it is withheld, are among what an update replaces.
    limited = bool(context.hidden) or (context.rules is not None and not delete)
    if capability.allows(everyone, context.session) and not limited:
        return None
    if not capability.allows(everyone, context.session):
        capability.require(own, context.session)
    client_id = context.sender.credential.identity.client_id
    if client_id is None:
        raise Unauthorized(
            "changing own messages needs a connection with a clientId", code=Code.UNIDENTIFIED_OWNER
        )
    return client_id


def _require_publish(context: PublishContext) -> None:
    context.sender.credential.capability.require(Right.PUBLISH, context.session)
    if context.may_publish is False:
        raise Unauthorized(
            "the channel was attached without the publish mode", code=Code.PUBLISH_MODE_MISSING
        )


def _ephemeral(messages: Sequence[Message]) -> bool:
    marked = [is_ephemeral(message) for message in messages]
    if any(marked) and not all(marked):
        raise BadRequest("messages of one publish are all ephemeral, or none is", code=Code.INVALID_PUBLISH)
    return marked[0]


def _short(base: str) -> str:
    if len(base) > _MAX_ID:
        raise BadRequest(f"a message id is at most {_MAX_ID} characters long", code=Code.INVALID_MESSAGE_ID)
    return base


def with_action(message: Message, action: MessageAction, serial: str) -> Message:
    """The body of a PATCH as the mutation it is."""
    return replace(message, action=action, serial=serial)
