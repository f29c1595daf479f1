"""All stores of a process come from one place, so that all of them have the namespaces' rules."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import agent_worker
import gateway
import selfhost_transport
from selfhost_transport.commands.stores import opened_stores
from selfhost_transport.settings import NamespaceRule, Settings, load_settings
from selfhost_transport.store import stores as factory
from selfhost_transport.wire.message import Message
from tests.store.turns import request

WEEK_MS = 7 * 86_400_000
BUILT = {
    "RedisConnection", "StoreOptions", "SessionStore", "TurnStore", "TurnPauses", "TurnInputs", "TurnSteps",
    "PresenceStore", "AnnotationStore", "OccupancyStore", "Retention", "RevocationStore", "HistoryReader",
    "DeadLetters", "EndedTurns",
}  # fmt: skip


def settings_for(redis_url: str, redis_prefix: str) -> Settings:
    plain = load_settings(redis=redis_url, redis_prefix=redis_prefix)
    rules = (NamespaceRule(id="kept", retention="7d", agent="a"), NamespaceRule(id="*", agent="a"))  # type: ignore[arg-type]
    return plain.model_copy(update={"namespaces": rules})


def calls_in(file: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id, node.lineno


def test_no_other_place_builds_a_store() -> None:
    """Where a store makes its own default options, none of its callers in the product relies on that."""
    elsewhere = []
    for package in (selfhost_transport, gateway, agent_worker):
        assert package.__file__ is not None
        for file in Path(package.__file__).parent.rglob("*.py"):
            if file == Path(factory.__file__):
                continue
            elsewhere += [f"{file.name}:{line} {name}" for name, line in calls_in(file) if name in BUILT]
    # Each of these is the default of a store that is used without any, or a reader that has no rules.
    allowed = {"StoreOptions", "HistoryReader"}
    assert [call for call in elsewhere if call.split()[1] not in allowed] == []


async def test_what_any_store_writes_is_kept_as_the_namespace_says(redis_url: str, redis_prefix: str) -> None:
    """The reaper, a workflow host, `dead requeue` and the gateway use these very stores."""
    async with opened_stores(settings_for(redis_url, redis_prefix)) as stores:
        base = stores.keys.base_of
        await stores.sessions.publish("kept:1", [Message(data="x")])
        await stores.sessions.publish("other", [Message(data="x")])
        await stores.turns.submit(dataclasses.replace(request("t"), session="kept:2"))
        kept = {
            name: await stores.redis.command("HGET", f"{base(name)}s:{name}", "rt")
            for name in ("kept:1", "kept:2")
        }
        assert kept == dict.fromkeys(kept, str(WEEK_MS).encode())
        assert await stores.redis.command("HGET", f"{base('other')}s:other", "rt") is None
