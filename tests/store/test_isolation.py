"""One session cannot reach into another: whatever its ids are, nothing of the other is read or changed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from selfhost_transport.errors import NotFound
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.store.annotations import AnnotationStore
from selfhost_transport.store.entries import MessageOperation, Ref
from selfhost_transport.store.keys import Keyspace
from selfhost_transport.store.presence import Holder, PresenceStore
from selfhost_transport.store.session_store import SessionStore
from selfhost_transport.store.turn_inputs import Continuation, TurnInputs
from selfhost_transport.store.turn_operations import CreateMessage
from selfhost_transport.store.turn_pauses import TurnPauses
from selfhost_transport.store.turn_steps import TurnHolder, TurnSteps
from selfhost_transport.store.turn_store import CancelFilter, Lease, Policy, Scope, TurnStore
from selfhost_transport.wire.actions import AnnotationAction, MessageAction, PresenceAction
from selfhost_transport.wire.annotation import Annotation
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.presence import PresenceMessage
from selfhost_transport.wire.serial import Position
from tests.store.turns import CANCEL, request

VICTIM, ATTACKER = "umbrella:lobby:1", "lobby:1"
SUFFIX = ":umbrella"
"""What an id of the attacker's session ends with so that, joined with it, it reads as an id of the victim's."""


@pytest.fixture
def keys(redis_prefix: str) -> Keyspace:
    """Both sessions in one bucket."""
    return Keyspace(redis_prefix, buckets=1)


@pytest.fixture
async def victim(connection: RedisConnection, turns: TurnStore, sessions: SessionStore) -> AsyncIterator[str]:
    """A session with a turn at work, a waiting one, receipts, an early cancel, a member, and annotations."""
    await turns.submit(request("t1", session=VICTIM))
    assert await turns.take(0, "a", "w1", 60_000)
    await turns.submit(request("t2", session=VICTIM, policy=Policy.QUEUE))
    published = await sessions.publish(VICTIM, [Message(data="x", client_id="v")], publish_id="p1")
    await sessions.append(VICTIM, Ref(published.position), "y", publish_id="p2")
    await turns.cancels.cancel(VICTIM, CancelFilter(Scope.INPUT, "in-t9"), CANCEL, input_turn="t9")
    await turns.cancels.cancel(VICTIM, CancelFilter(Scope.TURN, "t8"), CANCEL)
    presence = PresenceStore(connection, turns.keys)
    await presence.change(VICTIM, Holder("c1", "o", "n"), [_member("v")], publish_id="p3")
    await AnnotationStore(connection, turns.keys).give(
        VICTIM, [(Ref(published.position), _reaction("v"))], publish_id="p4"
    )
    yield VICTIM


def _member(client_id: str) -> PresenceMessage:
    return PresenceMessage(action=PresenceAction.ENTER, client_id=client_id)


def _reaction(client_id: str) -> Annotation:
    return Annotation(action=AnnotationAction.CREATE, type="r:distinct.v1", name="n", client_id=client_id)


async def dumped(connection: RedisConnection, keys: Keyspace) -> dict[bytes, bytes | None]:
    """All keys of the victim's session, and what they hold."""
    found = await connection.command("KEYS", f"{keys.prefix}*:{VICTIM}")
    return {key: await connection.command("DUMP", key) for key in sorted(found)}


def _lease(turn: str) -> Lease:
    return Lease(ATTACKER, turn, 1, 1, 3, "", "", Position.ZERO, b"")


async def _attack(connection: RedisConnection, turns: TurnStore, sessions: SessionStore) -> None:
    """Everything that takes an id, in the attacker's session, with the ids of the victim's."""
    keys = turns.keys
    inputs, pauses = TurnInputs(connection, keys), TurnPauses(connection, keys)
    steps, presence = TurnSteps(connection, keys), PresenceStore(connection, keys)
    named = [
        name + SUFFIX for name in ("t1", "t2", "t8", "t9", "in-t1", "in-t9", "ev-t1", "p1", "p2", "p3", "p4")
    ]
    mine = await sessions.publish(ATTACKER, [Message(data="m", client_id="e")])
    continuation = Continuation(request("t1").closing, b"")
    for name in named:
        await sessions.publish(ATTACKER, [Message(data="m")], publish_id=name)
        await sessions.append(ATTACKER, Ref(mine.position), "z", publish_id=name + "a")
        change = Message(data="r")
        await sessions.replace(
            ATTACKER,
            Ref(mine.position),
            MessageAction.UPDATE,
            change,
            MessageOperation(),
            publish_id=name + "b",
        )
        await AnnotationStore(connection, keys).give(
            ATTACKER, [(Ref(mine.position), _reaction(name))], publish_id=name + "c"
        )
        await presence.change(ATTACKER, Holder("c1", "o2", "n2"), [_member(name)], publish_id=name + "d")
        assert await turns.record(ATTACKER, name) is None
        assert await turns.turn_of_event(ATTACKER, name) is None
        assert await inputs.context(ATTACKER, name) is None
        for call in (
            inputs.steer(ATTACKER, name, [Message(data="s")], publish_id=name + "e"),
            inputs.answer(
                ATTACKER, name, [Message(data="s")], "result:c", continuation, publish_id=name + "f"
            ),
            inputs.promote(ATTACKER, name),
            steps.turn_of_event(ATTACKER, name),
        ):
            with pytest.raises(NotFound):
                await call
        holder = TurnHolder("h", "r", 1000, 1000)
        assert await steps.claim(ATTACKER, name, holder) is None
        assert await steps.adopt(ATTACKER, name, holder) is None
        lease = _lease(name)
        assert await turns.renew(0, [lease], 1000) == [name]
        assert not await turns.hand_back(0, lease)
        assert not await pauses.steered(lease)
        await turns.submit(
            request(name, session=ATTACKER, input_id=name + "g", event_id=name, policy=Policy.INTERRUPT)
        )
        taken = await turns.take(0, "a", "w2", 60_000)
        assert taken is not None and (taken.session, taken.turn_id) == (ATTACKER, name)
        await turns.write(taken, 1, [CreateMessage(Message(data="o"))])
        await turns.end(taken, "completed", [CreateMessage(Message(data="end"))])
        for scope in Scope:
            cancelled = await turns.cancels.cancel(
                ATTACKER, CancelFilter(scope, name), CANCEL, input_turn=name + "h"
            )
            assert not cancelled.matched
    await presence.leave(ATTACKER, "c1")


async def test_nothing_of_another_session_is_read_or_changed(
    victim: str, connection: RedisConnection, turns: TurnStore, sessions: SessionStore
) -> None:
    before = await dumped(connection, turns.keys)
    assert len(before) > 15
    await _attack(connection, turns, sessions)
    assert await dumped(connection, turns.keys) == before


async def test_receipts_and_early_cancels_are_those_of_one_session_and_kind(
    turns: TurnStore, sessions: SessionStore
) -> None:
    await sessions.publish(ATTACKER, [Message(data="m")], publish_id="invoice-17" + SUFFIX)
    assert not (await sessions.publish(VICTIM, [Message(data="v")], publish_id="invoice-17")).repeated
    await turns.cancels.cancel(ATTACKER, CancelFilter(Scope.INPUT, "msg-2" + SUFFIX), CANCEL, input_turn="x")
    await turns.cancels.cancel(VICTIM, CancelFilter(Scope.TURN, "msg-2"), CANCEL)
    sent = await turns.submit(replace(request("t1", session=VICTIM), input_id="msg-2"))
    assert sent.status == "pending"
    # The turn's own early cancel counts.
    await turns.cancels.cancel(VICTIM, CancelFilter(Scope.INPUT, "in-t3"), CANCEL, input_turn="t3")
    assert (await turns.submit(request("t3", session=VICTIM))).status == "cancelled"


async def test_a_lease_of_a_turn_with_a_hostile_id_expires_in_its_own_session(
    connection: RedisConnection, turns: TurnStore
) -> None:
    """Members of the sorted sets are pairs: `t x` of `y` is not `t` of `x y`."""
    await turns.submit(request("t x", session="y"))
    await turns.submit(request("t", session="x y"))
    assert [await turns.take(0, "a", "w", ms) for ms in (1, 60_000)]
    await connection.command("ZADD", f"{turns.keys.base(0)}leases", "XX", 1, "t%20x y")
    assert await turns.reap(0) == ("t x", "y", "retried")
    assert await turns.reap(0) is None
