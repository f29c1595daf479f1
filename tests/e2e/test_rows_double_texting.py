"""Rows DBL: what becomes of a send while the agent is busy."""

from __future__ import annotations

import json
import sys
from itertools import pairwise

import pytest

from selfhost_transport import ClientTransport, TurnStatus
from selfhost_transport.errors import Busy
from selfhost_transport.turns import headers as h
from tests.e2e.peer import peer
from tests.e2e.stage import (
    KEY,
    PATIENCE_S,
    Stage,
    assert_exact,
    each,
    script,
    token_seen,
    turn_id,
)
from tests.processes import wait_until
from tests.promptness import prompt, within

pytestmark = pytest.mark.asyncio(loop_scope="module")

# Queues a message behind a running turn and dies.
SENDER = """
import asyncio, os, signal, sys
from selfhost_transport import ClientTransport
async def main():
    url, key, session, text = sys.argv[1:]
    async with ClientTransport.connect(url, key=key, client_id="sender", channel=session) as client:
        turn = await client.view.send(text, policy="queue")
        print("sent", turn.turn_id, (await turn.accepted).status, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


async def test_dbl_1_sends_are_concurrent_by_default(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session) as client:
        first = await client.view.send(script(60, 60))
        await token_seen(first)
        second = await client.view.send(script(60, 60))
        assert (await second.accepted).status == "pending"
        await each([first.ended, second.ended])
        assert_exact(first, 60)
        assert_exact(second, 60)
    log = await stage.log(session)
    earlier, later = (log.content(turn_id(turn)) for turn in (first, second))
    assert later[0] < earlier[-1], "the second one waited for the first"


@prompt
async def test_dbl_2_and_6_policies_per_send(stage: Stage) -> None:
    """Three policies in one session, chosen by each send."""
    session = stage.session()
    async with stage.connect(session) as client, stage.connect(session, "user-2", gateway=1) as other:
        first = await client.view.send(script(40, 40))
        queued = await client.view.send(script(3, 0), policy="queue")
        assert (await queued.accepted).status == "queued"
        alongside = await client.view.send(script(4, 0), policy="concurrent")
        await alongside.ended
        assert first.status is TurnStatus.ACTIVE and queued.status is TurnStatus.PENDING
        async with within(0.5):
            instead = await other.view.interrupt(script(5, 0))
        assert not first.status.is_terminal
        await instead.ended
        await first.ended
        await queued.ended
        assert_exact(first, 40)
        assert_exact(queued, 3)


async def test_dbl_3_what_is_queued_survives_its_sender(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session, "user-2", gateway=1) as other:
        running = await other.view.send(script(5000, 50))
        await token_seen(running)
        arguments = (stage.gateways[0].url, KEY, session, script(7, 0))
        sender = await stage.stack.run(sys.executable, "-c", SENDER, *arguments)
        assert await sender.wait() == -9
        _, queued_id, status = sender.lines[-1].split()
        queued = other.turn(queued_id)
        assert status == "queued" and not running.status.is_terminal
        await running.cancel()
        await queued.ended
        assert_exact(queued, 7)
    log = await stage.log(session)
    assert log.content(queued_id)[0] > log.content(turn_id(running))[-1]


async def test_dbl_4_policy_interrupt_is_one_atomic_step(stage: Stage) -> None:
    # The namespace's policy: a send ends what runs.
    session = stage.session("barge")
    async with stage.connect(session) as client, stage.connect(session, "user-2", gateway=1) as other:
        first = await client.view.send(script(2000, 50))
        await token_seen(other.turn(turn_id(first)), 5)
        second = await other.view.send(script(9, 0))
        await second.ended
        assert (await first.ended).status is TurnStatus.CANCELLED
        assert_exact(second, 9)
    log = await stage.log(session)
    assert (log.ends(turn_id(first)), log.ends(turn_id(second))) == (["cancelled"], ["complete"])
    (cancelled,) = [position for position, _ in log.created(h.AI_CANCEL)]
    (asked,) = [p for p, m in log.created(h.AI_INPUT) if m.client_id == "user-2"]
    (ended,) = [p for p, m in log.of_turn(turn_id(first)) if m.name == h.AI_RUN_END]
    assert cancelled < ended < asked
    # Between the cancel and the new message there is only what closes the first turn.
    between = [entry.position for entry in log.entries if cancelled < entry.position < asked]
    closing = [position for position, _ in log.of_turn(turn_id(first)) if position > cancelled]
    assert all(position < cancelled for position in log.content(turn_id(first)))
    assert set(closing) <= set(between) and len(between) - len(closing) <= 1


async def test_dbl_5_policy_reject_names_what_is_busy(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session) as client, stage.connect(session, "user-2", gateway=1) as other:
        first = await client.view.send(script(2000, 50))
        await token_seen(first)
        with pytest.raises(Busy) as refused:
            await other.view.send("me too", policy="reject")
        info = refused.value.info
        assert (info.code, info.status_code, (info.detail or {})["turns"]) == (40900, 409, [first.turn_id])
        assert [m.message.role for m in other.view.messages] == ["user", "assistant"]
        await client.cancel()
        second = await other.view.send(script(3, 0), policy="reject")
        await second.ended
        assert_exact(second, 3)
    assert len((await stage.log(session)).created(h.AI_INPUT)) == 2


async def test_dbl_7_a_policy_of_the_session_holds_on_every_device(stage: Stage) -> None:
    session = stage.session("queue")
    async with (
        stage.connect(session) as one,
        stage.connect(session, "user-2", gateway=1) as two,
        peer(stage, session) as js,
    ):
        first = await one.view.send(script(150, 50))
        await token_seen(first)
        queued = [await client.view.send(script(3, 0)) for client in (one, two)]
        assert [(await turn.accepted).status for turn in queued] == ["queued"] * 2
        js.ask(do="send", text=script(3, 0))
        await js.heard("sent")
        await wait_until(lambda: two.active_turns.get("js-reader"), PATIENCE_S, "the JS client's turn")
        (of_js,) = two.active_turns["js-reader"]
        queued.append(two.turn(of_js))
        assert first.status is TurnStatus.ACTIVE
        for client in (one, two):
            waiting = [client.turn(turn_id(turn)) for turn in queued]
            assert [turn.status for turn in waiting] == [TurnStatus.PENDING] * 3
        await each([turn.ended for turn in queued])
        for turn in queued:
            assert_exact(turn, 3)
    log = await stage.log(session)
    spans = [log.content(turn_id(turn)) for turn in (first, *queued)]
    assert all(before[-1] < after[0] for before, after in pairwise(spans)), "not in order"


@pytest.mark.parametrize("ending", ["complete", "cancelled", "error"])
async def test_dbl_9_the_queue_drains_after_every_ending(stage: Stage, ending: str) -> None:
    session = stage.session("queue")
    async with stage.connect(session) as client:
        first = await client.view.send(
            script(40, 80, **({"fail_at": 20, "always": 1} if ending == "error" else {}))
        )
        queued = [await client.view.send(script(tokens, 0)) for tokens in (3, 4)]
        await token_seen(first)
        if ending == "cancelled":
            await client.cancel(first.turn_id)
        await each([turn.ended for turn in (first, *queued)])
        for turn, tokens in zip(queued, (3, 4), strict=True):
            assert_exact(turn, tokens)
    log = await stage.log(session)
    assert log.ends(turn_id(first)) == [ending]
    spans = [log.content(turn_id(turn)) for turn in (first, *queued)]
    assert all(before[-1] < after[0] for before, after in pairwise(spans)), "not in order"


async def test_dbl_13_texts_that_wait_become_one_turn(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session) as client:
        first = await client.view.send(script(100, 80))
        await token_seen(first)
        texts = ["budget", "in May", "script: echo_context=1"]
        turns = [await client.view.send(text, policy="merge") for text in texts]
        await each([turn.ended for turn in (first, *turns)])
        assert_exact(first, 100)
        assert [turn.text for turn in turns[:2]] == ["", ""]
        context = json.loads(turns[2].text)
    asked = [part["text"] for m in context if m["role"] == "user" for part in m["parts"]]
    assert asked[-3:] == texts
    log = await stage.log(session)
    assert [log.ends(turn_id(turn)) for turn in turns] == [["complete"]] * 3


async def test_dbl_10_a_rate_limit_of_the_provider_hits_only_its_own_turn(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session) as client:
        failing = {3, 8, 13, 18}
        texts = [script(20, 60, **({"fail_at": 5, "always": 1} if n in failing else {})) for n in range(20)]
        turns = [client.view.start(text) for text in texts]
        await each([turn.ended for turn in turns])
        for number, turn in enumerate(turns):
            assert_exact(turn, 5 if number in failing else 20)
            expected = TurnStatus.FAILED if number in failing else TurnStatus.COMPLETED
            assert turn.status is expected and (turn.error is not None) == (number in failing)
        after = await client.view.send(script(2, 0))
        await after.ended
        assert_exact(after, 2)
    log = await stage.log(session)
    ends = [log.ends(turn_id(turn)) for turn in turns]
    assert ends == [["error"] if number in failing else ["complete"] for number in range(20)]


async def test_dbl_11_the_tree_is_intact_whatever_the_policy(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session) as one, stage.connect(session, "user-2", gateway=1) as two:
        first = await one.view.send(script(40, 60))
        await token_seen(first)
        answer = one.view.messages[-1].codec_message_id
        below = [await one.view.send(script(3, 0), policy=policy) for policy in ("concurrent", "queue")]
        beside = await one.view.send(script(4, 0), parent=answer)
        await each([turn.ended for turn in (first, *below, beside)])
        last = await one.view.send(script(5, 0), policy="interrupt")
        await each([client.turn(turn_id(last)).ended for client in (one, two)])
        await wait_until(lambda: shape(two) == shape(one), PATIENCE_S, "the same tree on both")
        parents = shape(one)
        assert parents[first.input_codec_message_id or ""] is None
        assert parents[below[0].input_codec_message_id or ""] == answer
        assert parents[beside.input_codec_message_id or ""] == answer
        # Every message hangs below one that is there.
        known = {m.codec_message_id for node in one.tree.nodes() for m in node.messages.values()}
        assert set(parents.values()) <= {None, *known}
        shown = [[m.message.to_json() for m in client.view.messages] for client in (one, two)]
        assert shown[0] == shown[1] and len(shown[0]) == 10
    async with stage.connect(session, "user-3") as late:
        assert shape(late) == parents
        assert [m.message.to_json() for m in late.view.messages] == shown[0]


async def test_int_16_a_limit_queues_and_loses_nothing(stage: Stage) -> None:
    session = stage.session("pair")
    async with stage.connect(session) as client:
        # Those that run last longer than a busy machine may take for the sends.
        scripts = [script(100, 50)] * 2 + [script(30, 60)] * 3
        turns = [await client.view.send(text) for text in scripts]
        answers = [(await turn.accepted).status for turn in turns]
        assert answers == ["pending", "pending", "queued", "queued", "queued"]
        await each([turn.ended for turn in turns])
        for turn, tokens in zip(turns, (100, 100, 30, 30, 30), strict=True):
            assert_exact(turn, tokens)
    log = await stage.log(session)
    spans = [log.content(turn_id(turn)) for turn in turns]
    for start, *_ in spans:
        assert sum(span[0] <= start <= span[-1] for span in spans) <= 2


def shape(client: ClientTransport) -> dict[str, str | None]:
    """What every input hangs below."""
    return {node.key: node.parent for node in client.tree.nodes() if node.run is None}
