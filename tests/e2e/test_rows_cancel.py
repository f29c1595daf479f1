"""Rows CAN: what a cancel names, says, reaches and survives."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack

import pytest

from selfhost_transport import ClientTransport, Turn, TurnStatus
from selfhost_transport.errors import CapabilityError, TransportError
from selfhost_transport.redis_io.embedded import EmbeddedRedis
from selfhost_transport.settings import ENV_PREFIX
from selfhost_transport.turns import headers as h
from selfhost_transport.wire.message import Message
from tests.e2e.conftest import Build
from tests.e2e.provider import Provider
from tests.e2e.stage import (
    CREW,
    FULL,
    Stage,
    assert_exact,
    each,
    position_of,
    scaled,
    script,
    token_seen,
    tokens_of,
    turn_id,
)
from tests.processes import wait_until
from tests.promptness import TooSlow, assert_quick, prompt, within
from tests.worker.session import numbered

pytestmark = pytest.mark.asyncio(loop_scope="module")

# A worker that a busy machine keeps waiting for a second or two keeps its turns.
SHORT_LEASE = {f"{ENV_PREFIX}LEASE_MS": "3000"}


async def test_can_1_closing_every_socket_ends_nothing(stage: Stage) -> None:
    session = stage.session()
    async with AsyncExitStack() as exits:
        clients = [
            await exits.enter_async_context(stage.connect(session, f"user-{n}", gateway=n % 2))
            for n in range(3)
        ]
        turns = [turn_id(await client.view.send(script(60, 60))) for client in clients]
        await each([token_seen(clients[0].turn(turn)) for turn in turns])
        for client in clients[1:]:
            client.drop_connection()
    for turn in turns:
        assert await stage.logged_end(session, turn) == ["complete"]
        assert await stage.text_in_history(session, turn) == numbered(60)


@pytest.mark.parametrize("scope", ["turn", "own", "client", "all"])
async def test_can_2_and_3_filters(stage: Stage, scope: str) -> None:
    session = stage.session()
    async with AsyncExitStack() as exits:
        clients = [
            await exits.enter_async_context(stage.connect(session, f"user-{n}", gateway=n % 2))
            for n in range(3)
        ]
        turns = [[await client.view.send(script(40, 40)) for _ in range(3)] for client in clients]
        done = await clients[0].view.send(script(1, 0))
        await done.ended
        everything = [turn for owned in turns for turn in owned]
        await each([token_seen(clients[0].turn(turn_id(turn))) for turn in everything])
        meant = {"turn": [turns[1][2]], "own": turns[0], "client": turns[2], "all": everything}[scope]
        if scope == "turn":
            result = await clients[0].cancel(turns[1][2].turn_id)
        elif scope == "client":
            result = await clients[0].cancel(client_id="user-2")
        else:
            result = await clients[0].cancel(all=scope == "all")
        assert set(result.matched) == {turn.turn_id for turn in meant}
        assert len(result.matched) == len(meant) and result.already_ended == ()
        again = await clients[0].cancel(meant[0].turn_id)
        assert (again.matched, again.already_ended) == ((), (meant[0].turn_id,))
        finished = await clients[0].cancel(done.turn_id)
        assert (finished.matched, finished.already_ended) == ((), (done.turn_id,))
        await clients[0].wait_for_turn(all=True)
        for turn in everything:
            seen = clients[0].turn(turn_id(turn))
            expected = TurnStatus.CANCELLED if turn in meant else TurnStatus.COMPLETED
            assert seen.status is expected
            if turn not in meant:
                assert_exact(seen, 40)
        log = await stage.log(session)
        for turn in meant:
            assert all(p < position_of(result.position) for p in log.content(turn_id(turn)))


async def test_can_4_send_and_cancel_in_the_same_tick(stage: Stage) -> None:
    session, count = stage.session(), scaled(500, 100)
    async with stage.connect(session) as client:

        async def send_and_cancel() -> None:
            for _ in range(count // 10):
                turn = client.view.start(script(50, 0))
                result = await turn.cancel()
                await turn.ended
                assert result.matched == (turn.turn_id,)
                assert turn.status is TurnStatus.CANCELLED

        await each([send_and_cancel() for _ in range(10)])
        # Both in one tick, and from one call each: by the id that the caller chose.
        sending = asyncio.create_task(client.view.send(script(50, 0), id="chosen"))
        cancelling = asyncio.create_task(_cancel_by_input(client, "chosen"))
        await asyncio.gather(sending, cancelling)
        await (await sending).ended
    log = await stage.log(session)
    ids = [info.run_id for info in client.turns()]
    assert len(ids) == count + 1
    for one in ids:
        assert log.ends(one) == ["cancelled"]
        assert log.tokens(one) == []


async def _cancel_by_input(client: ClientTransport, codec_message_id: str) -> None:
    turn = client.turn_for(codec_message_id)
    assert (await turn.cancel()).matched == (turn.turn_id,)


async def test_can_5_cancel_of_a_queued_turn_removes_it(stage: Stage) -> None:
    session = stage.session("queue")
    async with stage.connect(session) as client:
        first = await client.view.send(script(50, 50))
        second = await client.view.send(script(5, 0))
        third = await client.view.send(script(6, 0))
        assert (await second.accepted).status == "queued"
        assert (await second.cancel()).matched == (second.turn_id,)
        await client.wait_for_turn()
        assert_exact(first, 50)
        assert_exact(third, 6)
        log = await stage.log(session)
        assert log.ends(turn_id(second)) == ["cancelled"]
        assert h.AI_OUTPUT not in {message.name for _, message in log.of_turn(turn_id(second))}


@prompt
async def test_can_6_the_model_call_is_closed(build: Build) -> None:
    stage = await build(gateways=1, workers=0)
    await stage.add_worker(CREW)
    async with stage.connect(stage.session("crew")) as client:
        for hang_at, cancel_at in ((10, 10), (100_000, 5)):
            async with Provider(hang_at) as provider:
                turn = await client.view.send(f"provider {provider.url}")
                await token_seen(turn, cancel_at)
                began = time.monotonic()
                await turn.cancel()
                async with within(0.25):
                    disconnected = await provider.disconnected
                assert_quick(disconnected - began, 0.25)
                assert (await turn.ended).status is TurnStatus.CANCELLED


async def test_can_12_cancel_on_close_is_an_option(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session, "watcher") as watcher:
        kept, ended = [
            turn_id(await (await _leaver(stage, session, close)).started) for close in (None, "own")
        ]
        await watcher.wait_for_turn(all=True)
        assert watcher.turn(kept).status is TurnStatus.COMPLETED
        assert watcher.turn(ended).status is TurnStatus.CANCELLED


async def _leaver(stage: Stage, session: str, cancel: str | None) -> Turn:
    client = await stage.connect(session, f"leaver-{cancel}")
    turn = await client.view.send(script(30, 60))
    await token_seen(turn)
    await client.close(cancel="own" if cancel == "own" else None)
    return turn


async def test_can_13_cancelling_needs_the_right(stage: Stage) -> None:
    session = stage.session()
    async with (
        stage.connect(session) as client,
        stage.connect(session, None, key="test.reader:reader") as reader,
    ):
        turn = await client.view.send(script(30, 60))
        with pytest.raises(CapabilityError):
            await reader.cancel(turn.turn_id)
        await turn.ended
        assert_exact(turn, 30)


async def test_can_14_an_unknown_turn_is_no_error(stage: Stage) -> None:
    async with stage.connect(stage.session()) as client:
        result = await client.cancel("nope")
        assert (result.matched, result.already_ended) == ((), ())
        assert (await client.cancel()).matched == ()
        assert (await client.cancel(all=True)).matched == ()
        # And it cancels nothing that comes later.
        turn = await client.view.send(script(5, 0))
        await turn.ended
        assert_exact(turn, 5)


async def test_can_15_cancelled_and_finished_are_distinguishable_everywhere(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session) as client:
        live: dict[str, TurnStatus] = {}
        client.on("turn", lambda info: live.__setitem__(info.run_id, info.status))
        finished, cancelled = await client.view.send(script(3, 0)), await client.view.send(script(99, 50))
        await token_seen(cancelled)
        await cancelled.cancel()
        await client.wait_for_turn()
        expected = {turn_id(finished): TurnStatus.COMPLETED, turn_id(cancelled): TurnStatus.CANCELLED}
        assert live == expected
    async with stage.connect(session, "user-2", gateway=1) as late:
        assert {info.run_id: info.status for info in late.turns()} == expected
    room = stage.room(session)
    for turn, status in expected.items():
        assert (await room.record(turn)).status == status.value


@prompt
async def test_can_16_the_next_message_starts_a_turn_on_every_device(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session) as one, stage.connect(session, "user-2", gateway=1) as two:
        first = await one.view.send(script(500, 50))
        await token_seen(two.turn(turn_id(first)))
        await one.cancel()
        async with within(1.0):
            second = await two.view.send(script(5, 0))
            await second.ended
        assert_exact(second, 5)


@prompt
async def test_can_17_no_affinity(build: Build) -> None:
    stage = await build(gateways=3, workers=3)
    session = stage.session()
    async with stage.connect(session) as sender, stage.connect(session, "user-2", gateway=1) as canceller:
        turns = [await sender.view.send(script(500, 50)) for _ in range(6)]
        await each([token_seen(turn) for turn in turns])
        async with within(1.0):
            result = await canceller.cancel(all=True)
            await each([turn.ended for turn in turns])
        assert set(result.matched) == {turn.turn_id for turn in turns}
        log = await stage.log(session)
        for turn in turns:
            assert all(p < position_of(result.position) for p in log.content(turn_id(turn)))


async def test_can_18_a_cancel_survives_a_restart_of_everything(
    build: Build, own_redis: EmbeddedRedis
) -> None:
    stage = await build(own_redis.url, gateways=1, env=SHORT_LEASE)
    session = stage.session()
    async with stage.connect(session) as client:
        turn = await client.view.send(script(2000, 100))
        await token_seen(turn, 3)
        # The worker cannot react: it is frozen, and then gone.
        stage.workers[0].pause()
        await turn.cancel()
        for proc in (*stage.workers, *stage.gateways):
            proc.kill()
        port = stage.gateways.pop().port
        await asyncio.to_thread(own_redis.stop)
        await asyncio.to_thread(own_redis.start)
        await stage.add_worker()
        await stage.add_gateway(port)
        async with within(15):
            assert (await turn.ended).status is TurnStatus.CANCELLED
        after = await client.view.send(script(5, 0))
        await after.ended
        assert_exact(after, 5)
        # Longer than a lease: no one resumed it.
        room = stage.room(session)
        await asyncio.sleep(3.5)
        assert (await stage.log(session)).ends(turn_id(turn)) == ["cancelled"]
        assert (await room.record(turn_id(turn))).status == "cancelled"


@prompt
async def test_can_19_a_cancel_is_not_queued_behind_sends(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session) as client, stage.connect(session, "user-2", gateway=1) as other:
        turn = await client.view.send(script(2000, 50))
        await token_seen(other.turn(turn_id(turn)))
        sends = [
            asyncio.ensure_future(client.publish([Message(name="note", data=f"{number}")]))
            for number in range(scaled(10_000, 3000))
        ]
        await asyncio.sleep(0)
        try:
            # The row's quarter of a second is for a machine of one's own.
            async with within(0.25 if FULL else 1.0):
                result = await client.cancel(turn.turn_id)
                assert (await other.turn(turn_id(turn)).ended).status is TurnStatus.CANCELLED
            assert result.matched == (turn.turn_id,)
            if sends[-1].done():
                raise TooSlow("every send was done before the cancel")
        finally:
            await each(sends)
        assert all(
            p < position_of(result.position) for p in (await stage.log(session)).content(turn_id(turn))
        )


async def test_can_20_gathered_text_is_dropped_not_flushed(build: Build) -> None:
    stage = await build(env={f"{ENV_PREFIX}ROLLUP_WINDOW_MS": "500"})
    session = stage.session()
    async with stage.connect(session) as client:
        turn = await client.view.send(script(500, 100))
        await token_seen(turn, 2)
        # In the middle of the next window.
        await asyncio.sleep(0.25)
        result = await turn.cancel()
        await turn.ended
        kept = tokens_of(turn.text)
        await asyncio.sleep(0.6)
        log = await stage.log(session)
        assert all(p < position_of(result.position) for p in log.content(turn_id(turn)))
        assert tokens_of(await stage.text_in_history(session, turn_id(turn))) == kept


async def test_can_22_a_stop_is_never_an_error(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session) as one, stage.connect(session, "user-2", gateway=1) as two:
        errors: list[TransportError] = []
        one.on("error", errors.append)
        two.on("error", errors.append)
        for number in range(5):
            turn = await one.view.send(script(100, 100, hang_at=10 if number % 2 else 90))
            await token_seen(turn, 5)
            await (one if number % 2 else two).cancel(turn.turn_id)
            await turn.ended
            assert turn.error is None
        await wait_until(lambda: not two.active_turns)
        assert errors == []
    assert not any("Traceback" in proc.log for proc in (*stage.gateways, *stage.workers))


async def test_can_25_who_cancelled_what_and_when(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session) as one, stage.connect(session, "user-2", gateway=1) as two:
        turn = await one.view.send(script(100, 50))
        await token_seen(turn)
        await two.cancel(turn.turn_id)
        await turn.ended
    ((position, entry),) = (await stage.log(session)).created(h.AI_CANCEL)
    assert entry.client_id == "user-2" and abs(position.ms / 1000 - time.time()) < 60


async def test_dev_6_devices_that_share_a_client_id_can_still_be_distinguished(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session) as phone, stage.connect(session, gateway=1) as laptop:
        mine = await phone.view.send(script(2000, 50))
        other = await laptop.view.send(script(2000, 50))
        await each([token_seen(mine), token_seen(other)])
        result = await phone.cancel(connection=True)
        assert result.matched == (turn_id(mine),)
        await mine.ended
        assert other.status is TurnStatus.ACTIVE
        assert (await phone.cancel()).matched == (turn_id(other),)
        await other.ended
