"""The Python SDK beside the unmodified JS SDK: a JS agent that answers it, a JS client that sees what it sees."""

from __future__ import annotations

import json

import pytest

from agent_worker import AgentError, AgentHost
from selfhost_transport import ClientTransport, TurnStatus
from selfhost_transport.errors import TurnEnded
from selfhost_transport.settings import load_settings
from selfhost_transport.turns.headers import ROLE_ASSISTANT
from selfhost_transport.turns.prompt import build_prompt
from selfhost_transport.wire.message import Message
from tests.e2e.peer import peer
from tests.e2e.stage import Stage, assert_exact, script, streamed, token_seen, turn_id
from tests.worker.session import numbered

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_js_agent_answers_a_python_client(stage: Stage) -> None:
    session = stage.session("plain")
    async with stage.connect(session) as client, peer(stage, session) as js:
        turn = await client.view.send("hello")
        assert turn.turn_id is None
        js.ask(do="answer", invocation=turn.invocation, tokens=30, pause=5)
        await turn.started
        assert (turn.turn_id, turn.agent, turn.owner) == (
            (await js.heard("started"))["started"],
            "js-agent",
            "user-1",
        )
        assert await streamed(turn) == numbered(30)
        assert turn.status is TurnStatus.COMPLETED
        # Both at once, and one of them stopped.
        kept, stopped = await client.view.send("one"), await client.view.send("two")
        for each in (kept, stopped):
            js.ask(do="answer", invocation=each.invocation, tokens=300, pause=5)
        await token_seen(stopped, 10)
        result = await client.cancel(stopped.turn_id)
        assert result.matched == (stopped.turn_id,) and result.position
        assert (await stopped.ended).status is TurnStatus.CANCELLED
        await kept.ended
        assert_exact(kept, 300)
        js.ask(do="read")
        view = await js.heard("messages")
        mine = [{"role": shown.message.role, "text": shown.message.text} for shown in client.view.messages]
        assert view["messages"] == mine and len(mine) == 6
        states = {run["runId"]: run["status"] for run in view["runs"]}
        assert states == {turn.turn_id: "complete", kept.turn_id: "complete", stopped.turn_id: "cancelled"}


async def test_a_js_client_sees_what_a_python_client_does(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session) as client, peer(stage, session) as js:
        first = await client.view.send(script(20, 100))
        await first.ended
        stopped = await client.view.send(script(500, 100))
        await token_seen(stopped, 5)
        await client.cancel()
        again = await client.view.regenerate(client.view.messages[1].codec_message_id)
        await again.ended
        js.ask(do="read")
        view = await js.heard("messages")
        mine = [{"role": shown.message.role, "text": shown.message.text} for shown in client.view.messages]
        assert view["messages"] == mine and mine[1]["text"] == numbered(20)
        states = {run["runId"]: run["status"] for run in view["runs"]}
        assert states[turn_id(again)] == "complete"
        assert {run["clientId"] for run in view["runs"]} == {"user-1"}


async def test_dur_1_and_2_every_reader_sees_a_turn_that_is_handed_on(stage: Stage) -> None:
    session = stage.session("crew")
    settings = load_settings(redis=stage.stack.redis_url, redis_prefix=stage.stack.redis_prefix)
    async with stage.connect(session) as client, peer(stage, session) as js:
        turn = await client.view.send("hello")
        with pytest.raises(AgentError):
            async with AgentHost(settings) as host:
                held = await host.session(session).create_turn(turn_id(turn))
                async with held.step("draft") as step:
                    await step.pipe(["half of ", "it"])
                    raise AgentError("the activity failed")
        await token_seen(turn, 3)
        async with AgentHost(settings) as host, await host.session(session).adopt(turn_id(turn)) as held:
            for step_id, text in (("draft", "A draft"), ("finish", ", done.")):
                async with held.step(step_id) as step:
                    await step.pipe([text])
            await held.complete()
        await turn.ended
        assert turn.status is TurnStatus.COMPLETED
        async with stage.connect(session, "late", gateway=1) as late:
            js.ask(do="read")
            view = await js.heard("messages")
            shown = [item.message.text for item in client.view.messages]
            assert shown == ["hello", "A draft", ", done."]
            assert [message["text"] for message in view["messages"]] == shown
            assert [item.message.text for item in late.view.messages] == shown
        (run,) = view["runs"]
        steps = [(step["stepId"], step["status"], step["attemptCount"]) for step in run["steps"]]
        assert (run["status"], steps) == ("complete", [("draft", "complete", 2), ("finish", "complete", 1)])


async def test_p2_a_turn_that_no_one_holds_is_cancelled(stage: Stage) -> None:
    session = stage.session("crew")
    settings = load_settings(redis=stage.stack.redis_url, redis_prefix=stage.stack.redis_prefix)
    async with stage.connect(session) as client, AgentHost(settings) as host:
        turn = await client.view.send("hello")
        async with await host.session(session).create_turn(turn_id(turn)) as held, held.step("draft") as step:
            await step.pipe(["A draft"])
        assert (await client.cancel()).matched == (turn_id(turn),)
        with pytest.raises(TurnEnded):
            await host.session(session).adopt(turn_id(turn))
        await turn.ended
        assert (turn.status, turn.text) == (TurnStatus.CANCELLED, "A draft")


async def test_dev_3_stop_on_the_phone_stops_the_turn_of_the_laptop(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session) as laptop, peer(stage, session) as phone:
        turn = await laptop.view.send(script(2000, 50))
        await token_seen(turn, 5)
        phone.ask(do="stop", run=turn_id(turn))
        await phone.heard("stopped")
        assert (await turn.ended).status is TurnStatus.CANCELLED
        assert await stage.logged_end(session, turn_id(turn)) == ["cancelled"]


async def test_a_late_js_client_has_the_conversation_of_a_python_client(stage: Stage) -> None:
    """P14: whatever it has loaded, what it sends belongs to the branch that everyone sees."""
    session = stage.session()
    async with stage.connect(session) as client:
        for number in range(12):
            turn = await client.view.send(f"script: reasoning=2 tool=server say=answer-{number}")
            await turn.ended
            await client.publish([Message(name="note", data="between") for _ in range(30)])
        edited = client.view.messages[8].codec_message_id
        await (await client.view.edit(edited, "script: say=edited")).ended
        for number in range(12):
            await (await client.view.send(f"script: reasoning=2 say=more-{number}")).ended
        again = client.view.messages[-1].codec_message_id
        await (await client.view.regenerate(again)).ended
        async with peer(stage, session) as js:
            # Nothing is loaded; then one page; then everything.
            js.ask(do="send", text="script: echo_context=1")
            await given(client, (await js.heard("sent"))["sent"])
            js.ask(do="read", older=2)
            shown = (await js.heard("ids"))["ids"]
            js.ask(do="regenerate", id=shown[-1])
            await given(client, (await js.heard("sent"))["sent"])
            js.ask(do="edit", id=shown[0], text="script: echo_context=1")
            await given(client, (await js.heard("sent"))["sent"])
        # Another one: the SDK keeps in its own tree that the edit had no parent, whatever the service made of it.
        async with peer(stage, session) as js:
            js.ask(do="read", older=15)
            part = await js.heard("messages")
            js.ask(do="read", older=1000)
            loaded = await js.heard("messages")
        async with stage.connect(session, "late", history_limit=1000) as late:
            whole = [item.codec_message_id for item in late.view.messages]
            assert loaded["ids"] == whole and part["ids"] == whole[-15:]


async def given(client: ClientTransport, trigger: str) -> None:
    """The turn that a JS client asked for has ended; the model was given its branch from the first message on."""
    turn = client.turn_for(trigger)
    await turn.ended
    said = [one.codec_message_id for one in build_prompt(client.tree, trigger)]
    outputs = {one.codec_message_id for one in turn.messages if one.message.role == ROLE_ASSISTANT}
    assert said[0] == client.view.messages[0].codec_message_id
    assert len(json.loads(turn.text)) == len([one for one in said if one not in outputs]) > 10
