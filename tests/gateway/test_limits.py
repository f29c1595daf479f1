"""Limits of one's own: what they refuse, with which code, and that a cancel is never refused (OPS-5, OPS-6)."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from gateway.auth.rate_limits import Limits, Rate
from gateway.commands.commands import CancelTurns
from gateway.commands.publishing import PublishContext, Sender, prepare
from gateway.commands.turn_commands import TurnRules
from selfhost_transport.errors import Overloaded, RateLimited
from selfhost_transport.loop_lag import LastingLag
from selfhost_transport.settings import LimitSettings
from selfhost_transport.store.turn_store import Policy
from selfhost_transport.turns.inputs import InputIds, cancel, user_message
from selfhost_transport.turns.ui import TextPart
from selfhost_transport.wire.jwt import TokenClaims
from tests.gateway.cores import credential
from tests.gateway.raw import ACK, CONFIG, CONNECTED, ERROR, NACK, client
from tests.gateway.tokens import token
from tests.processes import Stack

pytestmark = pytest.mark.asyncio(loop_scope="module")
Names = Callable[[str], str]


class Clock:
    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


async def test_a_second_holds_its_rate_and_refills() -> None:
    clock = Clock()
    rate = Rate(clock)
    assert [rate.wait_s(("a",), 3) for _ in range(4)] == [0, 0, 0, pytest.approx(1 / 3)]
    clock.now += 1 / 3
    assert rate.wait_s(("a",), 3) == pytest.approx(0, abs=1e-6)
    assert rate.wait_s(("b",), 3) == 0
    clock.now += 100
    # Silence is not saved up.
    assert [rate.wait_s(("a",), 3) > 0 for _ in range(4)] == [False, False, False, True]


@pytest.mark.parametrize(
    ("settings", "code", "limit"),
    [
        ({"connection_publishes_per_s": 2}, 42911, "connection"),
        ({"client_publishes_per_s": 2}, 42910, "client"),
        ({"session_publishes_per_s": 2}, 42913, "session"),
        ({"application_publishes_per_s": 2}, 42910, "application"),
    ],
)
async def test_each_limit_has_its_code(settings: dict[str, int], code: int, limit: str) -> None:
    limits = Limits(LimitSettings(**settings), Clock())
    for _ in range(2):
        limits.admit(credential(), "c1", "s")
    with pytest.raises(RateLimited) as refused:
        limits.admit(credential(), "c1", "s")
    assert refused.value.info.code == code
    assert refused.value.info.detail is not None
    assert refused.value.info.detail["limit"] == limit
    assert 0 < refused.value.info.detail["retryAfterMs"] <= 501


async def test_without_limits_nothing_is_refused() -> None:
    limits = Limits(LimitSettings(), Clock())
    for _ in range(1000):
        limits.admit(credential(), "c1", "s")


async def test_what_is_counted_apart() -> None:
    limits = Limits(LimitSettings(client_publishes_per_s=1, session_publishes_per_s=2), Clock())
    limits.admit(credential("ann"), "c1", "s")
    limits.admit(credential("bob"), "c1", "s")
    with pytest.raises(RateLimited):
        limits.admit(credential("eve"), "c1", "s")
    # A client is limited on all its connections.
    with pytest.raises(RateLimited):
        limits.admit(credential("ann"), "c2", "other")


async def test_a_token_limits_itself_per_attachment() -> None:
    claims = TokenClaims("app.key", 0, 1, publish_rates={"slow:*": 1.0})
    who = credential()
    limited = type(who)(who.key_name, who.capability, who.identity, claims)
    limits = Limits(LimitSettings(), Clock())
    limits.admit(limited, "c1", "slow:1")
    limits.admit(limited, "c1", "slow:2")
    limits.admit(limited, "c1", "fast:1")
    with pytest.raises(RateLimited) as refused:
        limits.admit(limited, "c1", "slow:1")
    assert refused.value.info.code == 42913


LIMITED = (
    CONFIG.replace("[gateway]\n", "[gateway]\nmax_message_size = 1000\n")
    + """
[limits]
connection_publishes_per_s = 5
connections_per_client = 2
"""
)


async def test_beyond_the_rate_frames_are_refused_and_cancels_are_not(site: Stack, unique: Names) -> None:
    url = (await site.gateway(config=LIMITED)).url
    channel = unique("bound")
    async with client(url, clientId="ann") as raw:
        assert (await raw.action(CONNECTED))["connectionDetails"]["clientId"] == "ann"
        answers = [await raw.publish(channel, {"name": "x", "data": "y"}) for _ in range(8)]
        assert [answer["action"] for answer in answers[:5]] == [ACK] * 5
        refused = [answer for answer in answers if answer["action"] == NACK]
        assert refused
        assert {answer["error"]["code"] for answer in refused} == {42911}
        assert refused[0]["error"]["statusCode"] == 429
        cancel = {"name": "ai-cancel", "extras": {"ai": {"transport": {"cancel-all": "true"}}}}
        for _ in range(8):
            assert (await raw.publish(channel, cancel))["action"] == ACK
        # One connection more is allowed, a third is not; another client is not concerned.
        async with client(url, clientId="ann") as second, client(url, clientId="ann") as third:
            assert (await second.action(CONNECTED, ERROR))["action"] == CONNECTED
            assert (await third.action(CONNECTED, ERROR))["error"]["code"] == 42920
        async with client(url, clientId="bob") as other:
            assert (await other.action(CONNECTED, ERROR))["action"] == CONNECTED


async def test_ops_6_a_message_may_have_its_size_and_not_a_byte_more(site: Stack, unique: Names) -> None:
    url = (await site.gateway(config=LIMITED)).url
    fits, too_long = {"name": "n", "data": "x" * 900}, {"name": "n", "data": "x" * 1001}
    channel = unique("plain")
    async with client(url) as raw, httpx.AsyncClient(base_url=url, auth=("app.key", "secret")) as http:
        assert (await raw.publish(channel, fits))["action"] == ACK
        refused = await raw.publish(channel, too_long)
        assert (refused["action"], refused["error"]["code"]) == (NACK, 40009)
        stored = (await http.post(f"/channels/{channel}/messages", json=fits)).json()
        path = f"/channels/{channel}/messages"
        assert (await http.post(path, json=too_long)).json()["error"]["code"] == 40009
        change = {"action": 5, **too_long}
        changed = await http.patch(f"{path}/{stored['serials'][0]}", json=change)
        assert changed.json()["error"]["code"] == 40009
        session = unique("bound")
        sent = await http.post(f"/v1/sessions/{session}/turns", json={"text": "x" * 1001})
        assert sent.json()["error"]["code"] == 40009
        assert len((await http.get(path)).json()) == 2


async def test_rest_is_limited_too(site: Stack, unique: Names) -> None:
    config = CONFIG + "\n[limits]\nclient_publishes_per_s = 2\n"
    url = (await site.gateway(config=config)).url
    headers = {"Authorization": f"Bearer {token(client_id='ann')}"}
    async with httpx.AsyncClient(base_url=url, headers=headers) as http:
        path = f"/channels/{unique('plain')}/messages"
        answers = [await http.post(path, json={"name": "x"}) for _ in range(6)]
    assert [answer.status_code for answer in answers[:2]] == [201, 201]
    assert {answer.json()["error"]["code"] for answer in answers if answer.status_code == 429} == {42910}


async def test_a_gateway_that_is_late_refuses_turns_and_says_when_to_come_back() -> None:
    lag = 0.0
    limits = Limits(LimitSettings(max_lag_ms=500), Clock(), lambda: lag)
    limits.admit_turn()
    lag = 0.7
    with pytest.raises(Overloaded) as refused:
        limits.admit_turn()
    assert refused.value.info.retry_after_ms == 700
    # Everything else, a cancel above all, is done as before.
    limits.admit(credential(), "c1", "s")
    Limits(LimitSettings(max_lag_ms=0), Clock(), lambda: lag).admit_turn()


async def test_a_pause_or_a_short_rush_is_no_overload() -> None:
    now, lag = 0.0, 0.0
    late = LastingLag(0.5, lambda: lag, lambda: now)
    # For the seconds of each step, as late as that; whether it counts.
    for lasts_s, lag, counts in (
        (5.0, 0.4, False),
        (1.9, 3.0, False),
        (0.1, 0.1, False),
        (1.9, 3.0, False),
        (0.2, 0.7, True),
        (0.1, 0.2, False),
        (0.1, 3.0, False),
    ):
        late.look()
        now += lasts_s
        late.look()
        assert late.lasting_s == (lag if counts else 0.0), (now, lag)


async def test_a_queue_that_is_too_long_is_refused_before_anything_is_built() -> None:
    limits = Limits(LimitSettings(), closed_s=lambda agent, session: 0.1 if session == "full" else 0.0)
    limits.admit_turn("assistant", "room")
    with pytest.raises(Overloaded) as refused:
        limits.admit_turn("assistant", "full")
    assert (refused.value.info.retry_after_ms or 0) >= 100


async def test_a_cancel_passes_where_a_send_is_refused() -> None:
    rules = TurnRules("assistant", Policy.CONCURRENT)
    limits = Limits(LimitSettings(), lag=lambda: 9.0)
    context = PublishContext("room", Sender(credential()), rules, 65_536, "base", limits)
    with pytest.raises(Overloaded):
        prepare(context, user_message([TextPart("hello")], InputIds(), client_id="me"))
    assert isinstance(prepare(context, [cancel(event_id="e", run_id="t1")]), CancelTurns)
