"""`inspect` and `cancel`: a session seen and changed from the shell, with no gateway and no worker."""

from __future__ import annotations

import json

from selfhost_transport.errors import InvalidArgument, NotFound
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
    assert [entry.split()[2] for entry in report["entries"]] == [
        "ai-input", "ai-run-start", "ai-step-start", "ai-input",
    ]  # fmt: skip


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
    told = json.loads(call("cancel", "room", "--client", "alice", "--json").output)
    assert (told["matched"], told["alreadyEnded"]) == ([first], [])
    again = json.loads(call("cancel", "room", "--turn", first, "--json").output)
    assert (again["matched"], again["alreadyEnded"]) == ([], [first])
    assert again["position"] == told["position"]  # INT-22: the first cancel's
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
