"""Rows BRA and OPT that need the service: edits, other answers, and sends that are shown before they are confirmed."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import Any

import pytest

from selfhost_transport import ClientTransport, Turn, TurnStatus
from selfhost_transport.client import View
from selfhost_transport.errors import CapabilityError, Conflict
from selfhost_transport.turns import headers as h
from selfhost_transport.turns.inputs import UserPart
from selfhost_transport.turns.ui import DataPart, TextPart
from selfhost_transport.wire.message import Message
from tests.e2e.stage import PATIENCE_S, Stage, script, token_seen, turn_id
from tests.processes import wait_until
from tests.worker.session import header, numbered

pytestmark = pytest.mark.asyncio(loop_scope="module")


def texts(client: ClientTransport) -> list[str]:
    """What the view shows."""
    return [item.message.text for item in client.view.messages]


def asked(turn: Turn) -> str:
    """Codec-message-id of the message that asked for a turn."""
    assert turn.input_codec_message_id is not None
    return turn.input_codec_message_id


def answer_of(turn: Turn) -> str:
    """Codec-message-id of a turn's answer."""
    return turn.messages[-1].codec_message_id


async def finished(turn: Turn) -> Turn:
    """Wait for the end of a turn that completes."""
    async with asyncio.timeout(PATIENCE_S):
        await turn.ended
    assert turn.status is TurnStatus.COMPLETED
    return turn


async def say(client: ClientTransport, text: str, **options: Any) -> Turn:
    """One question with its whole answer."""
    return await finished(await client.view.send(f"script: say={text}", **options))


async def edited(client: ClientTransport, turn: Turn, text: str) -> Turn:
    """The question of a turn edited, with its whole answer."""
    return await finished(await client.view.edit(asked(turn), f"script: say={text}"))


async def again(client: ClientTransport, turn: Turn) -> Turn:
    """Another whole answer in place of a turn's."""
    return await finished(await client.view.regenerate(answer_of(turn)))


async def test_bra_2_an_edit_keeps_the_original_and_everything_below(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session) as client:
        first = await say(client, "one")
        await say(client, "below")
        await edited(client, first, "other")
        shown = ["script: say=other", "other"]
        assert texts(client) == shown
    async with stage.connect(session, "user-2", gateway=1) as reloaded:
        assert texts(reloaded) == shown
        reloaded.view.select(reloaded.view.messages[0].codec_message_id, 0)
        assert texts(reloaded) == ["script: say=one", "one", "script: say=below", "below"]


async def test_bra_3_an_edit_of_several_parts_keeps_their_order(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session) as client:
        first = await say(client, "one")
        parts: list[UserPart] = [
            TextPart("script: say=two"),
            DataPart("data-x", {"n": 1}),
            TextPart(" tokens=0"),
        ]
        await finished(await client.view.edit(asked(first), parts))
        kept = client.view.messages[0].message.parts
    async with stage.connect(session, "user-2") as reloaded:
        assert reloaded.view.messages[0].message.parts == kept == tuple(parts)


async def test_bra_6_an_edit_mid_stream_cancels_nothing_unless_asked(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session) as client:
        first = await client.view.send(script(60, 60))
        await token_seen(first, 2)
        beside = await client.view.edit(asked(first), script(5, 0))
        for turn, count in ((beside, 5), (first, 60)):
            assert (await finished(turn)).text == numbered(count)
        second = await client.view.send(script(5000, 50))
        await token_seen(second, 2)
        instead = await client.view.edit(asked(second), script(5, 0), cancel_active=True)
        await finished(instead)
        await second.ended
        assert second.status is TurnStatus.CANCELLED
    log = await stage.log(session)
    ((ended, _),) = [(p, m) for p, m in log.of_turn(turn_id(second)) if m.name == h.AI_RUN_END]
    ((sent, _),) = [
        (p, m) for p, m in log.created(h.AI_INPUT) if header(m, h.CODEC_MESSAGE_ID) == asked(instead)
    ]
    # One atomic step: nothing but the cancel's own entries stands between.
    between = [m.name for p, m in log.created() if ended < p < sent]
    assert ended < sent and between == []


async def test_bra_7_a_selection_is_of_its_view(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session) as client, stage.connect(session, "user-2", gateway=1) as other:
        second = await again(client, await say(client, "one"))
        await wait_until(
            lambda: len(other.view.messages) == 2 and other.turn(turn_id(second)).text, PATIENCE_S
        )
        client.view.select(answer_of(second), 0)
        original = client.view.messages[-1].codec_message_id
        assert other.view.messages[-1].codec_message_id == answer_of(second)
        assert original != answer_of(second)
        await other.view.select_for_all(answer_of(second), 0)
        await wait_until(lambda: other.view.messages[-1].codec_message_id == original, PATIENCE_S)
        await client.view.select_for_all(original, 1)
        for view in (client.view, other.view):
            await wait_until(partial(shows_last, view, answer_of(second)), PATIENCE_S)
    async with stage.connect(session, "user-3") as late:
        assert shows_last(late.view, answer_of(second))


def shows_last(view: View, codec_message_id: str) -> bool:
    """Whether a view ends with this message."""
    return view.messages[-1].codec_message_id == codec_message_id


async def test_bra_10_and_16_the_same_text_again_is_a_sibling_and_a_prompt_goes_below(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session) as client:
        first = await say(client, "same")
        second = await again(client, first)
        choice = client.view.branch_selection(answer_of(second))
        assert [item.message.text for item in choice.siblings if item] == ["same", "same"]
        assert choice.index == 1
        await say(client, "below")
        assert texts(client) == ["script: say=same", "same", "script: say=below", "below"]
        assert not client.view.branch_selection(client.view.messages[-1].codec_message_id).has_siblings
        assert client.tree.node_of(client.view.messages[2].codec_message_id).parent == answer_of(second)  # type: ignore[union-attr]


async def test_bra_11_the_context_is_the_chosen_branch_only(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session) as client:
        first = await say(client, "left")
        await edited(client, first, "right")

        async def context() -> list[str]:
            turn = await finished(await client.view.send("script: tokens=0 echo_context=1"))
            return [
                "".join(part.get("text", "") for part in message["parts"])
                for message in json.loads(turn.text)
            ]

        assert (await context())[:-1] == ["script: say=right", "right"]
        client.view.select(client.view.messages[0].codec_message_id, 0)
        assert (await context())[:-1] == ["script: say=left", "left"]


async def test_bra_12_another_answer_under_an_edited_prompt(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session) as client:
        changed = await edited(client, await say(client, "one"), "two")
        second = await again(client, changed)
        assert texts(client) == ["script: say=two", "two"]
        assert answer_of(second) == client.view.messages[-1].codec_message_id
        assert len(client.view.branch_selection(answer_of(second)).siblings) == 2
        assert len(client.view.branch_selection(asked(changed)).siblings) == 2
        # Also for an answer that the view does not show at the moment.
        client.view.select(asked(changed), 0)
        third = await again(client, second)
        client.view.select(client.view.messages[0].codec_message_id, 1)
        assert len(client.view.branch_selection(answer_of(third)).siblings) == 3


async def test_bra_14_and_opt_5_the_same_id_twice_is_one_turn(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session) as client:
        once, twice = await asyncio.gather(*(client.view.send("script: say=x", id="mine") for _ in range(2)))
        assert once.turn_id == twice.turn_id
        await finished(once)
        assert texts(client) == ["script: say=x", "x"]
        with pytest.raises(Conflict):
            await client.view.send("something else", id="mine")
        assert texts(client) == ["script: say=x", "x"]
    log = await stage.log(session)
    assert len(log.created(h.AI_INPUT)) == len(log.created(h.AI_RUN_START)) == 1


async def test_opt_2_and_7_an_edit_is_promoted_once_and_keeps_its_place(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session) as client:
        first = await say(client, "one")
        promoted: list[str] = []
        client.on("promoted", lambda event: promoted.append(event.codec_message_id))
        lengths: list[int] = []
        client.view.subscribe(lambda event: lengths.append(len(client.view.messages)))
        turn = await client.view.edit(asked(first), "script: say=two")
        await wait_until(lambda: promoted == [asked(turn)], PATIENCE_S)
        node = client.tree.owner_of(asked(turn))
        assert node is not None and node.serial is not None
        assert (node.parent, node.fork_of) == (None, asked(first))
        await finished(turn)
        # Never the original and its edit side by side.
        assert set(lengths) <= {1, 2}
        assert promoted == [asked(turn)]


async def test_opt_3_the_echo_before_the_reply(stage: Stage) -> None:
    """Through the service either may come first: the message is one, whichever it was."""
    session = stage.session()
    async with stage.connect(session) as client:
        for n in range(20):
            turn = client.view.start(f"script: tokens=0 say={n}", policy="queue")
            await turn.accepted
            found = [item for item in client.view.messages if item.codec_message_id == asked(turn)]
            assert len(found) == 1


async def test_opt_4_a_refused_send_is_taken_back(stage: Stage) -> None:
    async with stage.connect(stage.session(), key="test.reader:reader") as client:
        with pytest.raises(CapabilityError):
            await client.view.send("hello")
        assert client.view.messages == []


async def test_opt_8_several_sends_and_their_parts_keep_order(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session) as client, stage.connect(session, "user-2", gateway=1) as other:
        turns = [client.view.start([TextPart(f"{n}-"), TextPart("script: say=x")]) for n in range(5)]
        shown = texts(client)
        for turn in turns:
            await turn.accepted
            await turn.ended
        expected = [f"{n}-script: say=x" for n in range(5)]
        assert shown == expected
        for seen in (client, other):
            await wait_until(partial(has_questions, seen, 5), PATIENCE_S)
            assert questions(seen) == expected


def has_questions(client: ClientTransport, count: int) -> bool:
    """Whether so many questions are shown."""
    return len(questions(client)) == count


def questions(client: ClientTransport) -> list[str]:
    """What people said, in order."""
    said = (item.message for item in client.view.messages)
    return [message.text for message in said if message.role == "user"]


async def test_opt_9_answers_are_never_optimistic(stage: Stage) -> None:
    session = stage.session("plain")
    async with stage.connect(session) as client:
        turn = client.view.start("anyone there?")
        await turn.accepted
        # No one answers in this namespace, and so nothing is shown as an answer.
        assert [item.message.role for item in client.view.messages] == ["user"]
        assert [node.kind.value for node in client.tree.nodes()] == ["input"]
    async with stage.connect(stage.session()) as client:
        started = client.view.start("script: say=x")
        assert [item.message.role for item in client.view.messages] == ["user"]
        await finished(started)
        (answer,) = [item for item in client.view.messages if item.message.role == "assistant"]
        node = client.tree.owner_of(answer.codec_message_id)
        assert node is not None and node.serial is not None


async def test_opt_10_accepted_means_that_it_will_be_worked_on(stage: Stage) -> None:
    session = stage.session("queue")
    async with stage.connect(session) as client:
        first = await client.view.send(script(5000, 20))
        waiting = await client.view.send(script(3, 0))
        record = await stage.room(session).record(turn_id(waiting))
        assert record.status == "queued"
        await first.cancel()
        await finished(waiting)


async def test_opt_11_an_entry_without_the_id_is_a_new_message(stage: Stage) -> None:
    session = stage.session("plain")
    async with stage.connect(session) as client:
        mine = client.view.start("hello", id="mine")
        await mine.accepted
        # The same words by a peer that gives neither event-id nor our message id: another message.
        headers = {h.ROLE: "user", h.CODEC_MESSAGE_ID: "theirs", h.STREAM: "false"}
        codec = {h.KIND: "user-message", "messageId": "theirs", "partType": "text"}
        await client.publish([Message(name=h.AI_INPUT, data="hello", extras=h.make_extras(headers, codec))])
        await wait_until(lambda: len(client.view.messages) == 2, PATIENCE_S)
        assert [item.codec_message_id for item in client.view.messages] == ["mine", "theirs"]
