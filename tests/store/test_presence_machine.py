"""Any order of entering, leaving, losing sockets and processes, resuming and sweeping, against a plain model."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, ClassVar

import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.redis_io.embedded import EmbeddedRedis
from selfhost_transport.store.entries import PresenceChanged
from selfhost_transport.store.keys import Keyspace
from selfhost_transport.store.options import StoreOptions
from selfhost_transport.store.presence import Holder, PresenceStore
from selfhost_transport.store.session_store import SessionStore
from selfhost_transport.wire.actions import PresenceAction
from selfhost_transport.wire.presence import PresenceMessage
from selfhost_transport.wire.serial import Position
from tests.leaks import keys_under, unowned_keys

SESSIONS = ("one", "two", "three")
NODES = ("n1", "n2")
# Two connections with two sockets each, on different nodes. `c1` leaves at once when it is lost, `c2` in an hour.
HOLDERS = [
    Holder(connection, f"{connection}-{node}", node, remain)
    for connection, remain in (("c1", 0), ("c2", 3_600_000))
    for node in NODES
]
Member = tuple[str, str, str]

sessions = st.sampled_from(SESSIONS)
holders = st.sampled_from(HOLDERS)
nodes = st.sampled_from(NODES)
clients = st.sampled_from(("ann", "bob"))
data = st.sampled_from((None, "", "x", "y"))


@dataclass
class Model:
    """What should be in Redis: members, who holds each connection, which connections are due to leave."""

    members: dict[Member, tuple[str, str | None]] = field(default_factory=dict)
    holder: dict[str, Holder] = field(default_factory=dict)
    # The node that would orphan a connection, while one would.
    watched: dict[str, str] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    alive: dict[str, bool] = field(default_factory=dict)

    def present(self, connection: str) -> bool:
        return any(member[1] == connection for member in self.members)

    def hold(self, holder: Holder) -> None:
        self.holder[holder.connection_id] = holder
        self.watched[holder.connection_id] = holder.node
        self.gone.discard(holder.connection_id)

    def forget_if_left(self, connection: str) -> None:
        if not self.present(connection):
            self.holder.pop(connection, None)
            self.watched.pop(connection, None)
            self.gone.discard(connection)

    def leave(self, connection: str, session: str | None = None) -> int:
        leaving = [key for key in self.members if key[1] == connection and session in (None, key[0])]
        for key in leaving:
            del self.members[key]
        self.forget_if_left(connection)
        return len(leaving)


class Presence(RuleBasedStateMachine):
    """All sessions share one bucket here, so that the model needs no notion of buckets."""

    url: ClassVar[str]

    @initialize()
    def start(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.prefix = f"m{uuid.uuid4().hex[:12]}"
        keys = Keyspace(self.prefix, buckets=1)
        self.connection = self.run(self._connect())
        self.presence = PresenceStore(self.connection, keys, StoreOptions(presence_lease_ms=3_600_000))
        self.sessions = SessionStore(self.connection, keys)
        self.model = Model()
        self.frames = 0

    async def _connect(self) -> RedisConnection:
        return RedisConnection(self.url)

    def run(self, step: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(step)

    @rule(
        session=sessions,
        holder=holders,
        operations=st.lists(
            st.tuples(st.sampled_from((2, 3, 4)), clients, data, st.booleans()), min_size=1, max_size=3
        ),
    )
    def change(
        self, session: str, holder: Holder, operations: list[tuple[int, str, str | None, bool]]
    ) -> None:
        self.frames += 1
        model, frame, changes = self.model, [], 0
        for index, (action, client, value, again) in enumerate(operations):
            key = (session, holder.connection_id, client)
            known = model.members.get(key)
            fresh = f"{holder.connection_id}:{self.frames}:{index}"
            presence_id = known[0] if known and again else fresh
            frame.append(PresenceMessage(PresenceAction(action), presence_id, client, data=value))
            if action == PresenceAction.LEAVE:
                changes += model.members.pop(key, None) is not None
            elif known is None or presence_id == fresh:
                changes += 1
                model.members[key] = (presence_id, value)
        if any(key[:2] == (session, holder.connection_id) for key in model.members):
            model.hold(holder)
            model.alive.setdefault(holder.node, True)
        model.forget_if_left(holder.connection_id)
        answer = self.run(self.presence.change(session, holder, frame))
        assert answer.changes == changes

    @rule(session=sessions, holder=holders)
    def detach(self, session: str, holder: Holder) -> None:
        connection = holder.connection_id
        assert self.run(self.presence.leave(session, connection)) == self.model.leave(connection, session)

    @rule(holder=holders)
    def close(self, holder: Holder) -> None:
        mine = self.model.holder.get(holder.connection_id) == holder
        expected = self.model.leave(holder.connection_id) if mine else 0
        assert self.run(self.presence.leave_all(holder)) == expected

    @rule(holder=holders)
    def lose(self, holder: Holder) -> None:
        mine = self.model.holder.get(holder.connection_id) == holder
        if mine:
            self.model.gone.add(holder.connection_id)
        assert self.run(self.presence.lost(holder)) == mine

    @rule(holder=holders)
    def resume(self, holder: Holder) -> None:
        present = self.model.present(holder.connection_id)
        if present:
            self.model.hold(holder)
        assert self.run(self.presence.claim(holder)) == present

    @rule(node=nodes)
    def renew(self, node: str) -> None:
        assert self.run(self.presence.renew(node)) == self.model.alive.get(node, False)
        self.model.alive[node] = True

    @rule(node=nodes)
    def die(self, node: str) -> None:
        self.run(self.presence.retire(node))
        self.model.alive[node] = False

    @rule()
    def sweep(self) -> None:
        model = self.model
        for node in [node for node, alive in model.alive.items() if not alive]:
            del model.alive[node]
            orphans = [connection for connection, watcher in model.watched.items() if watcher == node]
            for connection in orphans:
                del model.watched[connection]
            model.gone.update(orphans)
        due = [connection for connection in model.gone if model.holder[connection].remain_ms == 0]
        assert self.run(self.presence.sweep()) == sum(model.leave(connection) for connection in due)

    @invariant()
    def the_roster_is_what_the_model_says(self) -> None:
        if not hasattr(self, "model"):
            return
        for session in SESSIONS:
            found = {
                (session, member.connection_id, member.client_id): (member.id, member.data)
                for member in self.run(self.presence.members(session))
            }
            assert found == {key: value for key, value in self.model.members.items() if key[0] == session}

    def teardown(self) -> None:
        for session in SESSIONS:
            self._events_lead_to_the_roster(session)
        for connection in ("c1", "c2"):
            for session in SESSIONS:
                self.run(self.presence.leave(session, connection))
        self.run(self.connection.close())
        self.loop.close()
        with redis.Redis.from_url(self.url, decode_responses=True) as client:
            assert not unowned_keys(client, self.prefix)
            names = keys_under(client, self.prefix)
            assert not [name for name in names if name.split(":")[2] in ("r", "o", "u", "d", "gone")]
            client.delete(*names, "none")

    def _events_lead_to_the_roster(self, session: str) -> None:
        """Each event follows from those before it: no one leaves twice, or updates before entering."""
        there: dict[tuple[str | None, str | None], str | bytes | None] = {}
        for entry in self.run(self.sessions.read_after(session, Position.ZERO)):
            assert isinstance(entry, PresenceChanged)
            for event in entry.presence:
                member = (event.connection_id, event.client_id)
                if event.action is PresenceAction.LEAVE:
                    del there[member]
                else:
                    assert event.action is PresenceAction.ENTER or member in there
                    there[member] = event.data
        assert there == {key[1:]: value[1] for key, value in self.model.members.items() if key[0] == session}


def test_presence_follows_the_model(redis_server: EmbeddedRedis) -> None:
    Presence.url = redis_server.url
    limits = settings(
        max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
    )
    Presence.TestCase.settings = limits
    Presence.TestCase().runTest()
