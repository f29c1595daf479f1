"""People who talk to one's own agent: conversations of several messages, with pauses and habits."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import AsyncExitStack

from selfhost_transport.distribution import Distribution
from selfhost_transport.errors import TransportError
from selfhost_transport.loadtest.plan import Habit, Load
from selfhost_transport.loadtest.session import ANY_OUTCOME, CANCELLABLE, LoadSession
from selfhost_transport.loadtest.verify import AskedTurn
from selfhost_transport.loadtest.window import Window, until

_LONGEST_INTERRUPT_S = 2.0


async def people(session: LoadSession, load: Load, window: Window, rng: random.Random, phase: float) -> None:
    """One person who begins a conversation after the other; or, with arrivals, one slot in which people arrive."""
    if load.arrivals_per_s:
        await _arrivals(session, load, window, rng)
        return
    await until(window.start + phase * load.spread_s)
    conversation = session
    while time.time() < window.end:
        await _converse(conversation, load, window, rng, opened=conversation is session)
        conversation = conversation.another()


async def _arrivals(session: LoadSession, load: Load, window: Window, rng: random.Random) -> None:
    """An open model: people arrive at random moments, whatever became of the earlier ones."""
    rate = load.arrivals_per_s / load.turns
    arrival, count = window.start, 0
    async with asyncio.TaskGroup() as group:
        while True:
            arrival += rng.expovariate(rate)
            if arrival >= window.end:
                return
            # While the rate grows, some of the arrivals are left out.
            if load.ramp_up_s and rng.random() * load.ramp_up_s > arrival - window.start:
                continue
            await until(arrival)
            count += 1
            group.create_task(_converse(session.another(count), load, window, rng))


async def _converse(
    session: LoadSession, load: Load, window: Window, rng: random.Random, *, opened: bool = False
) -> None:
    """One conversation, in a session of its own; compared with the history when it is over."""
    think = Distribution.parse(load.think)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(session.close)
        if not opened:
            try:
                await session.open()
            except (TransportError, TimeoutError, OSError) as error:
                session.failed_to_open(str(error) or type(error).__name__)
                await asyncio.sleep(
                    rng.uniform(0, _LONGEST_INTERRUPT_S)
                )  # a person tries again a little later
                return
        said = load.prompts[rng.randrange(len(load.prompts))]
        for text in said:
            if time.time() >= window.end:
                break
            await _ask(session, load, rng, text)
            pause = think.draw(rng)
            await asyncio.sleep(max(0.0, min(pause, window.end - time.time())))
        await session.compare()


async def _ask(session: LoadSession, load: Load, rng: random.Random, text: str) -> None:
    """One message and its answer, with what the person does meanwhile."""
    habit, percent = load.habit_of(session.number)
    turn = await session.send(time.time(), text=text, outcomes=ANY_OUTCOME)
    if turn is None:
        return
    if habit is not Habit.READ and rng.random() * 100 < percent:
        await asyncio.sleep(rng.uniform(0, _LONGEST_INTERRUPT_S))
        await _act(session, habit, turn, text)
    await session.wait(turn)


async def _act(session: LoadSession, habit: Habit, turn: AskedTurn, text: str) -> None:
    match habit:
        case Habit.CANCEL:
            turn.outcomes |= CANCELLABLE
            await session.cancel(turn)
        case Habit.RELOAD:
            await session.reload()
        case Habit.INTERRUPT:
            following = await session.interrupt([turn], time.time(), text=text)
            if following is not None:
                await session.wait(following)
        case Habit.READ:
            pass
