"""A cancel by HTTP, past a queue of sends, says as much as one by the websocket."""

from __future__ import annotations

import httpx

from selfhost_transport.client.cancel_result import CancelResult
from selfhost_transport.client.connection.credentials import make_credentials
from selfhost_transport.client.connection.endpoint import Endpoint
from selfhost_transport.client.rest import RestClient
from selfhost_transport.wire.codec import Format
from tests.client.scripted import CHANNEL, KEY


async def test_every_list_of_the_answer_is_in_the_result() -> None:
    answer = {
        "position": "p",
        "matched": ["a"],
        "alreadyEnded": ["b"],
        "denied": ["c"],
        "hookFailed": ["d"],
        "undecided": ["e"],
    }
    network = httpx.MockTransport(lambda _: httpx.Response(200, json=answer))
    credentials = make_credentials(key=KEY, token=None, auth_callback=None)
    rest = RestClient(credentials, CHANNEL, Format.JSON, http=network)
    result = await rest.cancel(Endpoint.parse("ws://one"), {"all": True})
    await rest.close()
    assert result == CancelResult("p", ("a",), ("b",), ("c",), ("d",), ("e",))
