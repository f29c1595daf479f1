"""`inspect` and `cancel`: a session seen and changed from the shell, with no gateway and no worker."""

from __future__ import annotations

import json

from selfhost_transport.errors import InvalidArgument, NotFound
from selfhost_transport.store.turn_store import Policy
from tests.commands.conftest import Call, InRoom
from tests.worker.session import Room


async def two_turns(room: Room) -> tuple[str, str]:
    """One that a worker has taken, one that waits in the queue."""
    first = await room.send("hello", client_id="alice")
    bucket = room.turns.keys.bases().index(room.turns.keys.base_of(room.name))
    assert await room.turns.take(bucket, "assistant", "worker-7", 60_000) is not None
    return first, await room.send("hello again", client_id="bob")


def test_ops_14_inspect_shows_turns_owners_leases_queue_and_entries(call: Call, in_room: InRoom) -> None:
    first, second = in_room(two_turns)
    report = json.loads(call("inspect", "room", "--json", "--entries", "4").output)
    turns = {line["turn"]: line for line in report["turns"]}
    assert set(turns) == {first, second}
    assert (turns[first]["status"], turns[first]["owner"], turns[first]["worker"]) == (
        "active",
        "alice",
        "worker-7",
    )
    assert 0 < turns[first]["lease_ms"] <= 60_000
    assert (turns[second]["status"], turns[second]["lease_ms"]) == ("pending", None)
    assert report["ready"] == {"assistant": 1}
    assert [(entry["kind"], entry["names"]) for entry in report["entries"]] == [
        ("publish", [name]) for name in ("ai-input", "ai-run-start", "ai-step-start", "ai-input")
    ]
    assert report["entries"][0]["client_id"] == "alice"


def test_inspect_shows_how_turns_ended_and_who_cancelled(call: Call, in_room: InRoom) -> None:
    async def turns(room: Room) -> list[str]:
        names = [*await two_turns(room), await room.send("and me", client_id="dan")]
        await room.cancel(names[2], "dan")
        return names

    first, second, third = in_room(turns)
    call("cancel", "room", "--turn", first, "--by", "carol")
    call("cancel", "room", "--all", "--by", "eve")
    ended = json.loads(call("inspect", "room", "--json").output)["ended"]
    reported = [(line["turn"], line["reason"], line["owner"], line["cancelled_by"]) for line in ended]
    assert reported == [
        (third, "cancelled", "dan", "dan"),
        (first, "cancelled", "alice", "carol"),
        (second, "cancelled", "bob", "eve"),
    ]
    assert [
        line["turn"] for line in json.loads(call("inspect", "room", "--json", "--ended", "1").output)["ended"]
    ] == [second]
    assert f"{first}  cancelled  owner alice  agent assistant  by carol" in call("inspect", "room").output


def test_a_turn_that_was_interrupted_names_who_interrupted(call: Call, in_room: InRoom) -> None:
    async def interrupted(room: Room) -> str:
        first = await room.send("hello", client_id="alice")
        await room.send("hello again", client_id="alice", policy=Policy.INTERRUPT)
        return first

    first = in_room(interrupted)
    (ended,) = json.loads(call("inspect", "room", "--json").output)["ended"]
    assert (ended["turn"], ended["reason"], ended["cancelled_by"]) == (first, "cancelled", "alice")


def test_inspect_without_a_name_lists_the_sessions(call: Call, in_room: InRoom) -> None:
    in_room(two_turns)
    (line,) = json.loads(call("inspect", "--json").output)
    assert (line["session"], line["open"], line["queued"]) == ("room", 2, 0) and line["last_ms"] > 1e12
    assert "open turns 2  waiting 0  room\n1 session(s) under the prefix" in call("inspect").output
    assert json.loads(call("inspect", "--json", "--prefix", "r*").output) == []
    assert len(json.loads(call("inspect", "--json", "--prefix", "ro").output)) == 1


def test_inspect_reads_well(call: Call, in_room: InRoom) -> None:
    first, _ = in_room(two_turns)
    result = call("inspect", "room")
    assert result.exit_code == 0
    assert f"{first}  active  owner alice  agent assistant  attempts 1  worker worker-7" in result.output
    assert "queue of assistant in this bucket: 1" in result.output


def test_inspecting_an_unknown_session_creates_nothing(call: Call) -> None:
    result = call("inspect", "nowhere")
    assert isinstance(result.exception, NotFound)


def test_int_20_cancel_works_without_worker_and_gateway(call: Call, in_room: InRoom) -> None:
    first, second = in_room(two_turns)
    reported = json.loads(call("cancel", "room", "--client", "alice", "--json").output)
    assert (reported["matched"], reported["alreadyEnded"]) == ([first], [])
    again = json.loads(call("cancel", "room", "--turn", first, "--json").output)
    assert (again["matched"], again["alreadyEnded"]) == ([], [first])
    assert again["position"] == reported["position"]  # INT-22: the first cancel's
    assert f"cancelled          {second}" in call("cancel", "room", "--all").output


async def authors(room: Room) -> list[str | None]:
    return [message.client_id for message in await room.history() if message.name == "ai-cancel"]


def test_can_25_the_author_of_a_cancel_is_recorded(call: Call, in_room: InRoom) -> None:
    in_room(two_turns)
    call("cancel", "room", "--all", "--by", "carol")
    assert in_room(authors) == ["carol"]


def test_a_cancel_names_exactly_one_filter(call: Call) -> None:
    for options in ([], ["--all", "--client", "alice"]):
        assert isinstance(call("cancel", "room", *options).exception, InvalidArgument)
