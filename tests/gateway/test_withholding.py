"""Withheld traffic in a feed and a connection: no byte of it, whichever way it would come (COT-4, TOL-13)."""

from __future__ import annotations

import json

from gateway.commands.commands import Replace
from gateway.fanout.backlog import CONFLATE_ABOVE
from gateway.fanout.delivery import Variant
from gateway.fanout.subscription import DeliveryState
from gateway.realtime.effects import Adjust, Attach
from selfhost_transport.store.entries import NO_OPERATION, Ref
from selfhost_transport.turns.headers import make_extras
from selfhost_transport.turns.withholding import NOTHING, Hidden, Traffic
from selfhost_transport.wire.actions import Action, MessageAction
from selfhost_transport.wire.channel import RewindCount
from selfhost_transport.wire.codec import Format
from selfhost_transport.wire.frame import Frame
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.serial import Position, format_position
from tests.gateway.cores import SERIAL, attached, commit, credential, only, opened, publish, sent
from tests.gateway.scene import SESSION, Reader, Scene
from tests.processes import wait_until

REASONING: Hidden = frozenset({Traffic.REASONING})
SECRET = "a thought"
WATCHER = '{"*":["subscribe","history"]}'


def of_kind(kind: str, data: str) -> Message:
    extras = make_extras({"stream": "true", "status": "streaming"}, {"kind": kind})
    return Message(name="ai-output", data=data, extras=extras)


async def store(scene: Scene, *messages: Message) -> Ref:
    return Ref((await scene.store.publish(SESSION, list(messages))).position)


async def ended(scene: Scene, *readers: Reader) -> None:
    """Let a last message arrive everywhere."""
    await store(scene, of_kind("text", "end"))
    await wait_until(lambda: all(reported(reader)[-1:] == ["end"] for reader in readers))


def reported(reader: Reader) -> list[str]:
    return [message["data"] for message in reader.messages]


def is_clean(reader: Reader) -> bool:
    frames = json.dumps(reader.frames)
    return SECRET not in frames and "reasoning" not in frames


async def test_creates_appends_and_updates_of_what_is_hidden_are_left_out(scene: Scene) -> None:
    everything, less = await scene.join(), await scene.join(hidden=REASONING)
    thought = await store(scene, of_kind("reasoning", SECRET))
    text = await store(scene, of_kind("text", "a"))
    await scene.append(thought, SECRET)
    await scene.append(text, "b")
    change = Message(data=f"{SECRET}, changed")
    await scene.store.replace(SESSION, thought, MessageAction.UPDATE, change, NO_OPERATION)
    await store(scene, of_kind("reasoning", SECRET), of_kind("text", "beside it"))
    await ended(scene, everything, less)
    assert reported(less) == ["a", "b", "beside it", "end"]
    assert reported(everything) == [SECRET, "a", SECRET, "b", change.data, SECRET, "beside it", "end"]
    assert is_clean(less)


async def test_who_joins_in_the_middle_gets_the_rest_and_is_not_held_up(scene: Scene) -> None:
    thought = await store(scene, of_kind("reasoning", SECRET))
    text = await store(scene, of_kind("text", "a"))
    less = await scene.join(hidden=REASONING)
    await scene.append(thought, SECRET, SECRET)
    await scene.append(text, "b", "c")
    await wait_until(lambda: less.text == "abc")
    await scene.append(thought, SECRET)
    await ended(scene, less)
    assert less.subscription.state is DeliveryState.LIVE
    assert is_clean(less)


async def test_a_resume_leaves_it_out_whether_conflated_or_not(scene: Scene) -> None:
    await store(scene, of_kind("text", "before"))
    before = format_position(*await _here(scene))
    thought = await store(scene, of_kind("reasoning", SECRET))
    text = await store(scene, of_kind("text", "a"))
    await scene.append(thought, SECRET)
    few = await scene.join(before, hidden=REASONING)
    await ended(scene, few)
    assert reported(few) == ["a", "end"]
    await scene.append(thought, *[SECRET] * CONFLATE_ABOVE)
    await scene.append(text, "b")
    many = await scene.join(before, hidden=REASONING)
    # Known only from the log: the message itself is older than where this one resumes.
    late = await scene.join(format_position(text.position, scene.feed.epoch), hidden=REASONING)
    await ended(scene, many, late)
    assert "".join(reported(many)).startswith("a") and "ab" in reported(many)
    assert all(is_clean(reader) for reader in (few, many, late))


async def _here(scene: Scene) -> tuple[Position, str]:
    head = await scene.store.open(SESSION)
    return head.position, head.epoch


async def test_a_rewind_counts_what_may_be_seen(scene: Scene) -> None:
    for number in range(3):
        await store(scene, of_kind("text", str(number)))
        await store(scene, of_kind("reasoning", SECRET))
    less = await scene.join(hidden=REASONING, rewind=RewindCount(2))
    await ended(scene, less)
    assert reported(less) == ["1", "2", "end"]
    assert is_clean(less)


async def test_other_rights_count_from_the_next_entry_on(scene: Scene) -> None:
    reader = await scene.join(hidden=REASONING)
    thought = await store(scene, of_kind("reasoning", "1"))
    await ended(scene, reader)
    scene.feed.show_as(reader.subscription, Variant(Format.JSON, SESSION))
    await scene.append(thought, "2")
    await wait_until(lambda: reported(reader)[-1] == "12")
    await scene.append(thought, "3")
    await wait_until(lambda: reported(reader)[-1] == "3")
    scene.feed.show_as(reader.subscription, Variant(Format.JSON, SESSION, REASONING))
    await scene.append(thought, "4")
    await ended(scene, reader)
    scene.feed.show_as(reader.subscription, Variant(Format.JSON, SESSION))
    await scene.append(thought, "5")
    await wait_until(lambda: reported(reader)[-1] == "12345")
    assert reported(reader) == ["end", "12", "3", "end", "12345"]


class TestConnection:
    def test_an_attachment_hides_what_the_credentials_do_not_permit(self) -> None:
        for rights, hidden in (
            (WATCHER, frozenset(Traffic)),
            ('{"*":["subscribe","tools-subscribe"]}', frozenset({Traffic.REASONING})),
            ('{"*":["*"]}', NOTHING),
        ):
            core = opened(credential(rights=rights))
            effects = core.receive(Frame(Action.ATTACH, channel="veiled:1"))
            assert only(effects, Attach).hidden == hidden
            assert only(core.receive(Frame(Action.ATTACH, channel="open")), Attach).hidden == NOTHING

    def test_a_new_token_changes_what_is_hidden(self) -> None:
        core = attached(opened(), "veiled:1")
        narrower = core.reauthenticated(credential(rights=WATCHER), "key2")
        assert only(narrower, Adjust).hidden == frozenset(Traffic)
        again = core.receive(Frame(Action.ATTACH, channel="veiled:1"))
        assert only(again, Adjust).hidden == frozenset(Traffic)
        assert only(core.reauthenticated(credential(), "key3"), Adjust).hidden == NOTHING

    def test_an_attach_on_its_way_is_begun_again_with_the_new_rights(self) -> None:
        core = opened()
        core.receive(Frame(Action.ATTACH, channel="veiled:1"))
        effects = core.reauthenticated(credential(rights=WATCHER), "key2")
        assert [frame.action for frame in sent(effects)] == [Action.CONNECTED]
        assert only(effects, Attach).hidden == frozenset(Traffic)

    def test_who_is_restricted_changes_own_messages_only(self) -> None:
        change = Message(action=MessageAction.UPDATE, extras={}, serial=f"{SERIAL}:000")
        rights = '{"*":["subscribe","message-update-any"]}'
        for channel, author in (("veiled:1", "alice"), ("open", None)):
            core = opened(credential(rights=rights))
            operation = commit(publish(core, 0, change, channel=channel)).operation
            assert isinstance(operation, Replace)
            assert operation.author == author
