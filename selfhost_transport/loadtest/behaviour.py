"""What a session does while it is under load, one function per scenario. All times are seconds since the epoch."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from selfhost_transport.loadtest.people import people
from selfhost_transport.loadtest.plan import Load, Scenario
from selfhost_transport.loadtest.session import CANCELLABLE, LoadSession
from selfhost_transport.loadtest.verify import AskedTurn
from selfhost_transport.loadtest.window import Window, until

_STORM_ROUND_S = 4.0
_STORM_CANCEL_AFTER_S = (1.5, 2.5)
# In every n-th session of a cancel storm the model stalls after a few tokens.
_SILENT_EVERY = 4
_SILENT_AT = 10
_LONGEST_INTERRUPT_S = 2.0
# The turns of the noisy session, as multiples of the rate of the others.
_NOISE = (40, *[10] * 10)

# Multiples of it, taken modulo 1, are spread as evenly as can be, however many there are.
_GOLDEN = (math.sqrt(5) - 1) / 2


Behaviour = Callable[[LoadSession, Load, Window, random.Random, float], Awaitable[None]]


async def steady(session: LoadSession, load: Load, window: Window, rng: random.Random, phase: float) -> None:
    """Turn after turn on an absolute schedule. The first sends are spread by `phase` (0..1), and first turns are
    of all lengths, so that later sends are spread as well, over the length of a turn."""
    scheduled = window.start + phase * load.spread_s
    tokens = max(1, math.ceil(load.tokens * (phase * load.turns * _GOLDEN % 1)))
    async with asyncio.TaskGroup() as turns:
        while scheduled < window.end:
            await until(scheduled)
            cancelled = rng.random() * 100 < load.cancel_percent
            turns.create_task(_turn(session, scheduled, tokens, rng.random() if cancelled else None))
            scheduled += tokens / load.rate + load.pause_s
            tokens = load.tokens


async def _turn(session: LoadSession, scheduled: float, tokens: int, cancel_at: float | None) -> None:
    outcomes = CANCELLABLE if cancel_at is not None else frozenset({"complete"})
    turn = await session.send(scheduled, tokens=tokens, outcomes=outcomes)
    if turn is None:
        return
    if cancel_at is not None:
        await until(scheduled + cancel_at * tokens / turn.rate)
        await session.cancel(turn)
    await session.wait(turn)


async def interrupt(
    session: LoadSession, load: Load, window: Window, rng: random.Random, phase: float
) -> None:
    """People who change their mind: a send, 0 to 2 s later an interruption in one of several ways, a send."""
    await until(window.start + phase * load.spread_s)
    running: list[AskedTurn] = []
    async with asyncio.TaskGroup() as group:
        while time.time() < window.end:
            turn = await session.send(time.time(), outcomes=CANCELLABLE)
            if turn is None:
                return
            running = [older for older in (*running, turn) if not older.outcome]
            group.create_task(session.wait(turn))
            await asyncio.sleep(rng.uniform(0, _LONGEST_INTERRUPT_S))
            following = await _interruption(session, running, rng)
            if following is not None:
                running.append(following)
                group.create_task(session.wait(following))


async def _interruption(
    session: LoadSession, running: list[AskedTurn], rng: random.Random
) -> AskedTurn | None:
    """One of: stop; stop, pressed twice; interrupt in one step; a lost socket and stop; sending alongside."""
    turn = running[-1]
    match rng.randrange(5):
        case 0:
            await session.cancel(turn)
        case 1:
            await asyncio.gather(session.cancel(turn), session.cancel(turn))
        case 2:
            return await session.interrupt(list(running), time.time())
        case 3:
            session.sender.drop()
            await session.cancel(turn, timed=False)
        case _:
            return await session.send(time.time(), outcomes=CANCELLABLE)
    return None


async def cancel_storm(
    session: LoadSession, load: Load, window: Window, rng: random.Random, phase: float
) -> None:
    """Rounds: all sessions start a turn within half a second and stop it within one second."""
    script = f"hang_at={_SILENT_AT}" if int(phase * load.turns + 0.5) % _SILENT_EVERY == 0 else ""
    tokens = math.ceil(load.rate * _STORM_ROUND_S * 2)
    began = window.start
    async with asyncio.TaskGroup() as group:
        while began + _STORM_ROUND_S <= window.end:
            scheduled = began + phase / 2
            await until(scheduled)
            turn = await session.send(scheduled, script=script, tokens=tokens, outcomes=CANCELLABLE)
            if turn is not None:
                await until(began + rng.uniform(*_STORM_CANCEL_AFTER_S))
                await session.cancel(turn)
                group.create_task(session.wait(turn))
            began += _STORM_ROUND_S


async def overload(
    session: LoadSession, load: Load, window: Window, rng: random.Random, phase: float
) -> None:
    """Sends on schedule at the offered rate, regardless of earlier outcomes."""
    calm_from = window.calm_from(load)
    scheduled = window.start + phase * load.turns / load.sends_per_s
    async with asyncio.TaskGroup() as turns:
        while scheduled < window.end:
            await until(scheduled)
            turns.create_task(_offered(session, scheduled))
            rate = load.sends_per_s if scheduled < calm_from else load.calm_sends_per_s
            scheduled += load.turns / rate


async def _offered(session: LoadSession, scheduled: float) -> None:
    turn = await session.send(scheduled, may_be_shed=True)
    if turn is not None:
        await session.wait(turn)


async def idle(session: LoadSession, load: Load, window: Window, rng: random.Random, phase: float) -> None:
    """Nothing, attached."""
    await until(window.end)


async def noisy(session: LoadSession, load: Load, window: Window, rng: random.Random, phase: float) -> None:
    """A crowd of fast turns in one session; its second viewer stops reading for half of the window."""
    await until(window.start)
    seconds = load.lead_s + load.duration_s
    reader = session.viewers[-1].client
    async with asyncio.TaskGroup() as group:
        for factor in _NOISE:
            rate = load.rate * factor
            group.create_task(_noisy_turn(session, window.start, int(rate * seconds), rate))
        await until(window.begin)
        reader.stop_reading()
        await until((window.begin + window.end) / 2)
        reader.go_on()


async def _noisy_turn(session: LoadSession, scheduled: float, tokens: int, rate: float) -> None:
    turn = await session.send(scheduled, tokens=tokens, rate=rate)
    if turn is not None:
        await session.wait(turn)


BEHAVIOURS: dict[Scenario, Behaviour] = {
    Scenario.STEADY: steady,
    Scenario.RAMP: steady,
    Scenario.HERD: steady,
    Scenario.NOISY: steady,
    Scenario.INTERRUPT: interrupt,
    Scenario.CANCEL: cancel_storm,
    Scenario.IDLE: idle,
    Scenario.OVERLOAD: overload,
}


def behaviour_of(load: Load) -> Behaviour:
    """What every session does."""
    return people if load.any_text else BEHAVIOURS[load.scenario]


def noisy_load(load: Load) -> Load:
    """The load of the one noisy session: a second viewer, which will not read."""
    return replace(load, viewers=2)
