"""What went wrong at a provider reaches clients as a status that they can act on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from agent_worker import Turn, Worker
from agent_worker.adapters.failures import Failure, agent_error
from selfhost_transport.errors import BadRequest, RateLimited, ServiceError, TransportError
from selfhost_transport.settings import Settings
from selfhost_transport.turns import headers as h
from selfhost_transport.turns.runs import read_error
from tests.worker.session import Room

Run = Callable[[Worker], Awaitable[Worker]]
MakeSettings = Callable[..., Settings]


@pytest.mark.parametrize(
    ("failure", "status", "raised", "retryable"),
    [
        (Failure.RATE_LIMITED, 429, RateLimited, True),
        (Failure.FAILED, 502, ServiceError, True),
        (Failure.OVERLOADED, 503, ServiceError, True),
        (Failure.TIMED_OUT, 504, ServiceError, True),
        (Failure.TOO_LONG, 400, BadRequest, False),
        (Failure.REJECTED, 500, ServiceError, True),
    ],
)
async def test_a_providers_status_reaches_clients(
    room: Room,
    settings: MakeSettings,
    running: Run,
    failure: Failure,
    status: int,
    raised: type[TransportError],
    retryable: bool,
) -> None:
    worker = Worker(settings())

    @worker.agent("assistant")
    async def agent(turn: Turn) -> AsyncIterator[str]:
        yield "so far"
        raise agent_error(failure)

    await running(worker)
    turn = await room.send("go")
    await room.ended(turn)
    (end,) = [message for message in await room.of_turn(turn) if message.name == h.AI_RUN_END]
    headers = h.read_headers(end)
    assert headers is not None
    reported = read_error(headers)
    assert (reported.status_code, reported.message) == (status, failure.message)
    error = TransportError.from_info(reported)
    assert isinstance(error, raised)
    assert error.retryable is retryable
