"""Errors of the providers: typed, safe to show, and with a hint whether another attempt makes sense (TRN-19)."""

from __future__ import annotations

from typing import Any

import pytest

from agent_worker.adapters import Failure
from agent_worker.user_code.errors import AgentError
from selfhost_transport.errors import ErrorInfo
from tests.adapters import frames as f
from tests.adapters.calls import WAYS, Clients, Way
from tests.adapters.provider import Answer, Frame, Provider, Then, data, named

SECRET = "key sk-live-1234 of account Acme"
CHAT, RESPONSES, CLAUDE, _, AGENT, MODEL = WAYS

BY_STATUS = [
    (401, Failure.NO_ACCESS),
    (403, Failure.NO_ACCESS),
    (404, Failure.REJECTED),
    (400, Failure.REJECTED),
    (429, Failure.RATE_LIMITED),
    (500, Failure.FAILED),
    (503, Failure.OVERLOADED),
]


async def failure(provider: Provider, clients: Clients, way: Way, answer: Answer) -> AgentError:
    provider.answers = [answer]
    with pytest.raises(AgentError) as caught:
        [chunk async for chunk in way.start(clients)]
    return caught.value


def is_failure(error: AgentError, expected: Failure) -> None:
    info = error.info
    assert (info.status_code, info.message, error.again) == expected.value
    # The wire carries the status in the code.
    code = 104008 if expected.status_code == 500 else expected.status_code * 100
    assert info == ErrorInfo(code=code, status_code=expected.status_code, message=expected.message)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
@pytest.mark.parametrize(("status", "expected"), BY_STATUS)
async def test_a_refused_request(
    way: Way, status: int, expected: Failure, provider: Provider, clients: Clients
) -> None:
    body = {"type": "error", "error": {"message": SECRET, "type": "x", "code": None}}
    error = await failure(provider, clients, way, Answer(status=status, body=body))
    is_failure(error, expected)
    assert "sk-live" not in str(error)


CODES: list[tuple[Way, int, dict[str, Any], Failure]] = [
    (CHAT, 400, {"code": "context_length_exceeded", "type": "invalid_request_error"}, Failure.TOO_LONG),
    (CHAT, 429, {"code": "insufficient_quota", "type": "insufficient_quota"}, Failure.EXHAUSTED),
    (CHAT, 400, {"code": "content_filter", "type": "x"}, Failure.BLOCKED),
    (CLAUDE, 529, {"type": "overloaded_error"}, Failure.OVERLOADED),
    (CLAUDE, 413, {"type": "request_too_large"}, Failure.TOO_LONG),
    (
        CLAUDE,
        400,
        {"type": "invalid_request_error", "message": "prompt is too long: 9 > 8"},
        Failure.TOO_LONG,
    ),
    (AGENT, 400, {"code": "context_length_exceeded", "type": "invalid_request_error"}, Failure.TOO_LONG),
    (MODEL, 429, {"code": "insufficient_quota", "type": "insufficient_quota"}, Failure.EXHAUSTED),
]


@pytest.mark.parametrize(("way", "status", "error", "expected"), CODES)
async def test_codes_say_more_than_the_status(
    way: Way, status: int, error: dict[str, Any], expected: Failure, provider: Provider, clients: Clients
) -> None:
    body = {"type": "error", "error": {"message": SECRET, **error}}
    is_failure(await failure(provider, clients, way, Answer(status=status, body=body)), expected)


IN_STREAM: list[tuple[Way, Frame, Failure]] = [
    (
        CHAT,
        data({"error": {"message": SECRET, "type": "server_error", "code": None}}),
        Failure.FAILED,
    ),
    (
        RESPONSES,
        f.response_state("failed", "failed", error={"code": "rate_limit_exceeded", "message": SECRET}),
        Failure.RATE_LIMITED,
    ),
    (RESPONSES, f.response_state("failed", "failed"), Failure.FAILED),
    (
        CLAUDE,
        named({"type": "error", "error": {"type": "overloaded_error", "message": SECRET}}),
        Failure.OVERLOADED,
    ),
]


@pytest.mark.parametrize(("way", "event", "expected"), IN_STREAM)
async def test_an_error_in_the_middle_of_the_answer(
    way: Way, event: Frame, expected: Failure, provider: Provider, clients: Clients
) -> None:
    is_failure(await failure(provider, clients, way, Answer([*way.first_token, event])), expected)


async def test_what_is_not_json_is_not_shown(provider: Provider, clients: Clients) -> None:
    answer = Answer([*CHAT.first_token, b"data: {oops\n\n"])
    is_failure(await failure(provider, clients, CHAT, answer), Failure.UNUSABLE)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
async def test_no_one_listens(way: Way, provider: Provider, clients: Clients) -> None:
    await provider.stop()
    with pytest.raises(AgentError) as caught:
        [chunk async for chunk in way.start(clients)]
    is_failure(caught.value, Failure.UNREACHABLE)
    await provider.start()


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
async def test_a_provider_that_stays_silent_for_too_long(
    way: Way, provider: Provider, clients: Clients
) -> None:
    slow = Clients(clients.openai.with_options(timeout=0.1), clients.anthropic.with_options(timeout=0.1))
    is_failure(await failure(provider, slow, way, Answer(way.first_token, Then.HANG)), Failure.TIMED_OUT)


async def test_the_log_holds_what_clients_are_not_shown(
    provider: Provider, clients: Clients, caplog: pytest.LogCaptureFixture
) -> None:
    body = {"error": {"message": SECRET, "type": "invalid_request_error", "code": "invalid_api_key"}}
    await failure(provider, clients, CHAT, Answer(status=401, body=body))
    assert "failure=no_access error=AuthenticationError status=401 code=invalid_api_key" in caplog.text
