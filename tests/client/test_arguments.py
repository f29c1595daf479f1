"""Arguments of the wrong type or value are refused by name, before anything is sent."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

import pytest

from selfhost_transport import ClientTransport
from selfhost_transport.errors import InvalidArgument
from selfhost_transport.wire.actions import Action
from tests.client.asked import asked
from tests.client.scripted import CHANNEL, KEY, ScriptedService


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channel": None}, "channel is the name of the session"),
        ({"client_id": 5}, "a client id is a text"),
        ({"client_id": ""}, "a client id is a text"),
        ({"key": 5}, "a key is a text"),
        ({"key": None, "token": 5}, "a token is a text"),
        ({"key": None, "token": ""}, "a token is a text"),
        ({"key": None, "auth_callback": "token"}, "an auth_callback is a function"),
        ({"url": 8080}, "an endpoint is an address"),
        ({"url": "ws://one:99999"}, "an endpoint looks like"),
        ({"url": "ws://one:port"}, "an endpoint looks like"),
        ({"url": "ws://[::1"}, "an endpoint looks like"),
        ({"connect_timeout": "5"}, "connect_timeout is a number of seconds"),
        ({"timeout": 5}, "unknown option 'timeout'; there are format, connect_timeout"),
    ],
)
def test_what_a_client_is_made_with(arguments: dict[str, Any], message: str) -> None:
    given = {"url": "ws://one", "channel": CHANNEL, "key": KEY, **arguments}
    with pytest.raises(InvalidArgument, match=message):
        ClientTransport.connect(given.pop("url"), **given)


def test_one_further_endpoint_may_stand_alone() -> None:
    transport = ClientTransport("ws://one", channel=CHANNEL, key=KEY, endpoints="ws://two")
    assert [endpoint.netloc for endpoint in transport._endpoints] == ["one", "two"]


CALLS: list[tuple[str, Callable[[ClientTransport], Any]]] = [
    ("turn_id", lambda t: t.cancel(5)),  # type: ignore[arg-type]
    ("turn_id", lambda t: t.cancel("")),
    ("client_id", lambda t: t.cancel(client_id=5)),  # type: ignore[arg-type]
    ("turn_id", lambda t: t.wait_for_turn(5)),  # type: ignore[arg-type]
    ("turn_id", lambda t: t.turn(None)),  # type: ignore[arg-type]
    ("id", lambda t: t.view.send("x", id=5)),  # type: ignore[arg-type]
    ("parent", lambda t: t.view.send("x", parent=5)),  # type: ignore[arg-type]
    ("limit", lambda t: t.view.load_older(0)),
    ("limit", lambda t: t.view.load_older("5")),  # type: ignore[arg-type]
    ("callback", lambda t: t.on("turn", None)),  # type: ignore[call-overload]
    ("callback", lambda t: t.view.subscribe(None)),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("name", "call"), CALLS, ids=range(len(CALLS)))
async def test_what_a_call_is_given(name: str, call: Callable[[ClientTransport], Any]) -> None:
    transport, socket = await ScriptedService().open()
    with pytest.raises(InvalidArgument, match=f"^{name} is a"):
        result = call(transport)
        if inspect.isawaitable(result):
            await result
    assert socket.frames.empty(), "nothing was sent"
    await transport.close()


async def test_a_turn_is_named_by_its_id_or_its_handle() -> None:
    transport, socket, turn, agent = await asked(ScriptedService())
    agent.begin()
    await turn.started
    cancelling = asyncio.ensure_future(transport.cancel(turn))
    frame = await socket.next(Action.MESSAGE)
    (message,) = frame.messages or []
    assert message.extras is not None
    assert message.extras["ai"]["transport"]["run-id"] == turn.turn_id
    socket.ack(frame)
    await cancelling
    await transport.close()
