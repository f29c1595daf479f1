"""Building connections without I/O, and reading what they want."""

from __future__ import annotations

from typing import TypeVar

from gateway.auth.authenticator import Credential
from gateway.commands.commands import Done
from gateway.commands.turn_commands import TurnRules
from gateway.connection_terms import Terms
from gateway.fanout.subscription import AttachResult
from gateway.realtime.connection import Connection
from gateway.realtime.effects import Attach, Command, Effect, SendFrame
from selfhost_transport.store.turn_store import Policy
from selfhost_transport.turns.withholding import Traffic, hidden_from
from selfhost_transport.wire.actions import Action
from selfhost_transport.wire.capability import Capability
from selfhost_transport.wire.frame import AckResult, Frame
from selfhost_transport.wire.identity import Identity
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.serial import Position

EPOCH = "abcdefghij"
SERIAL = f"00000000000007-000@{EPOCH}"
TERMS = Terms(
    max_message_size=1000,
    max_frame_size=10_000,
    connection_state_ttl=120_000,
    max_idle_interval=15_000,
    server_id="gw-test",
)
RULES = TurnRules(agent="assistant", policy=Policy.CONCURRENT)
_Wanted = TypeVar("_Wanted")


def credential(
    client_id: str | None = "alice", rights: str = '{"*":["*"]}', *, wildcard: bool = False
) -> Credential:
    """Someone with these rights."""
    return Credential("app.key", Capability.parse(rights), Identity(client_id, wildcard))


def opened(who: Credential | None = None) -> Connection:
    """A connection that has said CONNECTED. Channels of `bound` have an agent, those of `veiled` withhold."""
    core = Connection(
        "CONN",
        who or credential(),
        TERMS,
        lambda name: RULES if name.startswith("bound") else None,
        hidden_from=lambda who, name: hidden_from(
            who.capability, name, Traffic if name.startswith("veiled") else ()
        ),
    )
    core.open("key")
    return core


def attached(core: Connection, channel: str = "c", flags: int | None = None) -> Connection:
    """The connection with the channel attached."""
    effects = core.receive(Frame(Action.ATTACH, channel=channel, flags=flags))
    assert only(effects, Attach)
    core.attach_ready(channel, AttachResult(SERIAL))
    return core


def publish(core: Connection, serial: int, *messages: Message, channel: str = "c") -> list[Effect]:
    """The effects of a MESSAGE frame."""
    return core.receive(Frame(Action.MESSAGE, channel=channel, msg_serial=serial, messages=list(messages)))


def done(*serials: str) -> Done:
    """A write that became these serials."""
    return Done(AckResult([*serials]), Position(7, 0), EPOCH)


def only(effects: list[Effect], kind: type[_Wanted]) -> _Wanted:
    """The one effect of a kind."""
    found = [effect for effect in effects if isinstance(effect, kind)]
    assert len(found) == 1, effects
    return found[0]


def sent(effects: list[Effect]) -> list[Frame]:
    """The frames that are sent."""
    return [effect.frame for effect in effects if isinstance(effect, SendFrame)]


def commit(effects: list[Effect]) -> Command:
    """The one operation that is started."""
    return only(effects, Command)
