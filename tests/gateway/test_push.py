"""Web push: encrypted, to people who have left, once, tried again, given up, ended by revocation."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
import redis

from gateway.push.message import content_of, is_push_service
from gateway.push.sender import _HideEndpoints
from selfhost_transport.settings import PushSettings, load_settings
from selfhost_transport.store.ended_turns import Ended
from selfhost_transport.store.push import MOST_PER_PERSON, PushSubscription
from selfhost_transport.store.stores import Stores
from selfhost_transport.turns.status import TurnStatus
from selfhost_transport.wire.serial import Position
from tests.gateway.pushing import AGENT, CONFIG, PRIVATE_KEY, PUBLIC_KEY, client, send, subscribe
from tests.processes import Stack, wait_until
from tests.push_service import Browser, push_service


async def token_of(http: httpx.AsyncClient, who: str) -> str:
    answer = await http.post("/keys/app.key/requestToken", json={"keyName": "app.key", "clientId": who})
    # In an HTTP header, Ably's tokens stand in base64.
    return base64.b64encode(answer.json()["token"].encode()).decode()


async def counted(http: httpx.AsyncClient, outcome: str) -> float:
    text = (await http.get("/metrics")).text
    lines = [
        line
        for line in text.splitlines()
        if line.startswith(f'sht_gateway_pushes_total{{outcome="{outcome}"')
    ]
    return sum(float(line.split()[-1]) for line in lines)


async def waiting(stack: Stack) -> int:
    stores = Stores.build(load_settings(redis=stack.redis_url, redis_prefix=stack.redis_prefix))
    try:
        return await stores.push.waiting()
    finally:
        await stores.close()


async def test_a_person_who_left_is_sent_one_message_by_several_gateways(stack: Stack) -> None:
    async with push_service(PUBLIC_KEY) as service:
        config = CONFIG.replace("SERVICE", service.url)
        gateways = [await stack.gateway(config=config) for _ in range(2)]
        await stack.worker(config=config)
        phone, laptop, other = (Browser(service.url, name) for name in ("phone", "laptop", "other"))
        async with client(gateways[0]) as http:
            assert (await http.get("/v1/push")).json() == {"publicKey": PUBLIC_KEY}
            for browser, who in ((phone, "ann"), (laptop, "ann"), (other, "bob")):
                await subscribe(http, browser, who)
            turn = await send(http, "chat:a")
            await wait_until(lambda: len(service.posted) >= 2, 10)
            second = await send(http, "chat:b")
            await wait_until(lambda: len(service.posted) >= 4, 10)
            cancelled = await send(http, "chat:c", "script: tokens=1000 rate=10")
            await http.post("/v1/sessions/chat:c/cancel", json={"turnId": cancelled})
            last = await send(http, "chat:d", by="bob")
            await wait_until(lambda: len(service.posted) >= 5, 10)
        for browser in (phone, laptop):
            assert [(one["session"], one["turnId"]) for one in service.of(browser)] == [
                ("chat:a", turn),
                ("chat:b", second),
            ]
        (said,) = service.of(other)
        assert (said["turnId"], said["type"], said["status"]) == (last, "turn.ended", "completed")
        assert set(said) == {"type", "session", "turnId", "status", "time"}
        for gateway in gateways:
            # Neither the key nor an address of a browser is in a log, however much is logged.
            assert PRIVATE_KEY not in gateway.log and "/send/" not in gateway.log


async def test_nothing_is_sent_to_who_is_attached_on_any_gateway(stack: Stack) -> None:
    async with push_service(PUBLIC_KEY) as service:
        config = CONFIG.replace("SERVICE", service.url)
        one, other = [await stack.gateway(config=config) for _ in range(2)]
        await stack.worker(config=config)
        browser = Browser(service.url, "phone")
        async with client(one) as http, client(other) as reader:
            await subscribe(http, browser)
            events = "/v1/sessions/chat:a/events"
            async with reader.stream("GET", events, params={"clientId": "ann"}) as stream:
                assert stream.status_code == 200

                async def is_counted() -> bool:
                    found = (await http.get("/channels/chat:a")).json()
                    return bool(found["status"]["occupancy"]["metrics"]["connections"] == 1)

                await wait_until(is_counted, 5)
                await send(http, "chat:a")

                async def passed() -> bool:
                    return await counted(http, "attached") + await counted(reader, "attached") == 1

                await wait_until(passed, 10)
                # Who looks on is another.
                await send(http, "chat:a", by="bob")
            left = await send(http, "chat:a", "script: tokens=40 rate=40")
            await wait_until(lambda: service.posted, 10)
            assert [said["turnId"] for said in service.of(browser)] == [left]


async def test_who_may_subscribe_for_whom_and_where(stack: Stack) -> None:
    config = CONFIG.replace("SERVICE", "https://*.push.example.com")
    gateway = await stack.gateway(config=config)
    good = {**Browser("https://eu.push.example.com", "a").subscription}
    async with client(gateway) as http:
        path = "/v1/push/subscriptions"
        token = await token_of(http, "ann")
        bearer: Mapping[str, str] = {"authorization": f"Bearer {token}"}

        async def put(body: dict[str, Any], headers: Mapping[str, str] | None = None) -> httpx.Response:
            if headers is None:
                return await http.put(path, json=body)
            async with httpx.AsyncClient(base_url=gateway.url, headers=headers) as bare:
                return await bare.put(path, json=body)

        assert (await put(good, bearer)).status_code == 200
        refused = await put({**good, "clientId": "bob"}, bearer)
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, 40012)
        assert (await put(good)).json()["error"]["code"] == 40012, "an anonymous one has no turns of its own"
        assert (await put(good, {"authorization": "Bearer nonsense"})).status_code == 401
        for endpoint in (
            "http://eu.push.example.com/a",
            "https://push.example.com/a",
            "https://127.0.0.1/a",
            "https://169.254.169.254/latest",
            "https://evil.com/.push.example.com",
            "https://eu.push.example.com@evil.com/a",
            "https://evil.com\\.push.example.com/a",
            "https://eu.push.example.com:8443/a",
            "file:///etc/passwd",
            "https://eu.push.example.com.evil.com/",
            "https://[::1]/a",
        ):
            answer = await put({**good, "endpoint": endpoint, "clientId": "ann"})
            assert answer.status_code == 400 and "push.services" in answer.text, endpoint
        keys: dict[str, str] = good["keys"]
        for wrong in (
            {**keys, "p256dh": keys["p256dh"][:-4]},
            {**keys, "auth": "AAAA"},
            {**keys, "p256dh": "B" + "A" * 86},
        ):
            answer = await put({**good, "keys": wrong, "clientId": "ann"})
            assert answer.status_code == 400 and wrong["p256dh"] not in answer.text, answer.text
        # A person ends only what is its own.
        (one,) = await _subscriptions(stack, "ann")
        await http.delete(f"{path}/{one.subscription_id}", params={"clientId": "bob"})
        assert len(await _subscriptions(stack, "ann")) == 1
        assert (
            await http.delete(f"{path}/{one.subscription_id}", params={"clientId": "ann"})
        ).status_code == 204
        assert await _subscriptions(stack, "ann") == []
        for number in range(MOST_PER_PERSON + 3):
            await put({**Browser("https://eu.push.example.com", str(number)).subscription, "clientId": "ann"})
        kept = {found.endpoint.rpartition("/")[2] for found in await _subscriptions(stack, "ann")}
        assert kept == {str(number) for number in range(3, MOST_PER_PERSON + 3)}


async def _subscriptions(stack: Stack, person: str) -> list[PushSubscription]:
    stores = Stores.build(load_settings(redis=stack.redis_url, redis_prefix=stack.redis_prefix))
    try:
        return await stores.push.subscriptions(person)
    finally:
        await stores.close()


async def test_a_gateway_without_a_key_says_so(stack: Stack) -> None:
    gateway = await stack.gateway(
        config=CONFIG.partition("[push]")[0] + '[[keys]]\nname = "app.key"\nsecret = "a-long-secret"\n'
    )
    async with client(gateway) as http:
        assert (await http.get("/v1/push")).status_code == 404
        assert (
            await http.put("/v1/push/subscriptions", json=Browser("https://x", "a").subscription)
        ).status_code == 404


async def test_gone_refused_redirected_and_failing(stack: Stack) -> None:
    async with push_service(PUBLIC_KEY) as service, push_service(PUBLIC_KEY) as elsewhere:
        gateway = await stack.gateway(config=CONFIG.replace("SERVICE", service.url))
        await stack.worker(config=CONFIG.replace("SERVICE", service.url))
        statuses = {"gone": 410, "lost": 404, "moved": 307, "refused": 403, "good": 201}
        service.more = f"location: {elsewhere.url}/send/x\r\n"
        service.answer = lambda one: statuses[one.path.rpartition("/")[2]]
        async with client(gateway) as http:
            for name in statuses:
                await subscribe(http, Browser(service.url, name))
            await send(http, "chat:a")
            await wait_until(lambda: len(service.posted) == len(statuses), 10)

            async def settled() -> bool:
                return await waiting(stack) == 0

            await wait_until(settled, 5)
            kept = {one.endpoint.rpartition("/")[2] for one in await _subscriptions(stack, "ann")}
            assert kept == {"moved", "refused", "good"}
            dead = (await http.get("/v1/operator/push/dead")).json()
            assert {(one["clientId"], one["reason"]) for one in dead} == {
                ("ann", "status 307"),
                ("ann", "status 403"),
            }
            assert elsewhere.posted == []
            # What was given up is sent again on request, under the same topic.
            service.answer = 201
            for letter in dead:
                answer = await http.post("/v1/operator/push/requeue", json={"letterId": letter["letterId"]})
                assert answer.status_code == 202, answer.text
            assert (
                await http.post("/v1/operator/push/requeue", json={"letterId": dead[0]["letterId"]})
            ).status_code == 404
            await wait_until(lambda: len(service.posted) == len(statuses) + 2, 5)
            assert (await http.get("/v1/operator/push/dead")).json() == []


async def test_a_service_that_fails_or_is_silent_gets_it_again_and_holds_up_no_one(stack: Stack) -> None:
    async with push_service(PUBLIC_KEY) as service, push_service(PUBLIC_KEY) as silent:
        silent.silent = True
        config = CONFIG.replace('"SERVICE"', f'"{service.url}", "{silent.url}"')
        gateway = await stack.gateway(config=config)
        await stack.worker(config=config)
        service.answer = lambda one: 503 if len(service.posted) == 1 else 201
        service.more = "retry-after: 1\r\n"
        async with client(gateway) as http:
            await subscribe(http, Browser(silent.url, "mute"), "eve")
            for _ in range(3):
                await send(http, "chat:e", by="eve")
            browser = Browser(service.url, "phone")
            await subscribe(http, browser)
            turn = await send(http, "chat:a")
            await wait_until(lambda: len(service.posted) == 1, 5, "the silent one holds nothing up")
            await wait_until(lambda: len(service.posted) == 2, 12, "it is tried again")
            assert [said["turnId"] for said in service.of(browser)] == [turn, turn]

            async def retried() -> bool:
                return await counted(http, "retried") >= 4

            await wait_until(retried, 5)
            await wait_until(lambda: silent.open_connections == 0, 5, "no request lasts longer than its time")


async def test_what_gateways_left_behind_is_delivered_by_another(stack: Stack) -> None:
    async with push_service(PUBLIC_KEY) as service:
        config = CONFIG.replace("SERVICE", service.url).replace("wait_ms = 300", "wait_ms = 2000")
        first = await stack.gateway(config=config)
        await stack.worker(config=config)
        browser = Browser(service.url, "phone")
        async with client(first) as http:
            await subscribe(http, browser)
            queued = await send(http, "chat:a")

            async def is_queued() -> bool:
                return await waiting(stack) == 1

            await wait_until(is_queued, 10)
            late = await send(http, "chat:b", "script: tokens=20 rate=20")
        first.kill()
        stores = Stores.build(load_settings(redis=stack.redis_url, redis_prefix=stack.redis_prefix))

        async def ended() -> bool:
            record = await stores.turns.record("chat:b", late)
            return record is not None and record.status == "completed"

        # It ends while there is no gateway.
        await wait_until(ended, 10)
        await stores.close()
        assert service.posted == []
        await stack.gateway(config=config)
        await wait_until(lambda: len(service.posted) == 2, 15)
        assert {said["turnId"] for said in service.of(browser)} == {queued, late}


async def test_a_revoked_person_is_sent_nothing_more(stack: Stack) -> None:
    async with push_service(PUBLIC_KEY) as service:
        config = CONFIG.replace("SERVICE", service.url)
        gateway = await stack.gateway(config=config)
        await stack.worker(config=config)
        async with client(gateway) as http:
            token = await token_of(http, "ann")
            async with httpx.AsyncClient(
                base_url=gateway.url, headers={"authorization": f"Bearer {token}"}
            ) as ann:
                await subscribe(ann, Browser(service.url, "phone"))
            await subscribe(http, Browser(service.url, "bob"), "bob")
            await send(http, "chat:a", "script: tokens=10 rate=20")
            await asyncio.sleep(0.01)  # so that the token was issued before the time of the revocation, in ms
            answer = await http.post("/keys/app.key/revokeTokens", json={"targets": ["clientId:ann"]})
            assert answer.status_code == 201, answer.text

            async def removed() -> bool:
                return await _subscriptions(stack, "ann") == []

            await wait_until(removed, 5)
            await send(http, "chat:b", by="bob")
            await wait_until(lambda: service.posted, 10)
            assert [one.path for one in service.posted] == ["/send/bob"]
            # Put anew with a token that is good, it is a subscription again.
            await asyncio.sleep(0.01)
            token = await token_of(http, "ann")
            async with httpx.AsyncClient(
                base_url=gateway.url, headers={"authorization": f"Bearer {token}"}
            ) as ann:
                await subscribe(ann, Browser(service.url, "phone"))
            await send(http, "chat:a")
            await wait_until(lambda: len(service.posted) == 2, 10)


async def test_who_is_asked_for_a_decision_gets_a_push(stack: Stack) -> None:
    async with push_service(PUBLIC_KEY) as service:
        config = CONFIG.replace("SERVICE", service.url)
        gateway = await stack.gateway(config=config)
        await stack.worker(AGENT, config=config)
        browser = Browser(service.url, "phone")
        async with client(gateway) as http:
            await subscribe(http, browser)
            await send(http, "chat:s", "approve")
            await wait_until(lambda: service.posted, 10)
        assert [said["type"] for said in service.of(browser)] == ["turn.suspended"]


async def test_a_hundred_people_and_all_keys_expire(stack: Stack) -> None:
    async with push_service(PUBLIC_KEY) as service:
        config = CONFIG.replace("SERVICE", service.url)
        gateway = await stack.gateway(config=config)
        await stack.worker(config=config)
        browsers = {f"p{number}": Browser(service.url, f"p{number}") for number in range(100)}
        async with client(gateway) as http:
            await asyncio.gather(*(subscribe(http, one, who) for who, one in browsers.items()))
            turns = dict(
                zip(
                    browsers,
                    await asyncio.gather(*(send(http, f"chat:{who}", by=who) for who in browsers)),
                    strict=True,
                )
            )
            await wait_until(lambda: len(service.posted) >= 100, 20)
            assert {who: [said["turnId"] for said in service.of(one)] for who, one in browsers.items()} == {
                who: [turn] for who, turn in turns.items()
            }
        assert len(service.posted) == 100
        with redis.Redis.from_url(stack.redis_url) as client_:
            keys = list(client_.scan_iter(f"{stack.redis_prefix}:{{push}}:*"))
            assert len(keys) > 200 and all(client_.ttl(key) > 0 for key in keys)


@pytest.mark.parametrize(
    ("service", "endpoint", "expected"),
    [
        ("https://fcm.googleapis.com", "https://fcm.googleapis.com/fcm/send/x", True),
        ("https://fcm.googleapis.com", "https://FCM.googleapis.com:443/x", True),
        ("https://fcm.googleapis.com", "https://fcm.googleapis.com./x", False),
        ("https://*.push.apple.com", "https://web.push.apple.com/x", True),
        ("https://*.push.apple.com", "https://push.apple.com/x", False),
        ("https://*.push.apple.com", "https://xpush.apple.com/x", False),
        ("http://127.0.0.1:90", "http://127.0.0.1:90/x", True),
        ("http://127.0.0.1:90", "http://127.0.0.1:91/x", False),
        ("https://a.com", "https://a.com:99999/x", False),
        ("https://a.com", "https://a.com/\nx", False),
        ("https://a.com", "//a.com/x", False),
    ],
)
def test_endpoints_of_push_services(service: str, endpoint: str, expected: bool) -> None:
    assert is_push_service(endpoint, [service]) is expected


def test_a_message_fits_whatever_the_session_is_called() -> None:
    at = Position(1, 0)
    ended = Ended(0, "1-1", "é" * 3000, "e", "t", TurnStatus.COMPLETED, "a", "ann", at, at, at, 1)
    assert len(content_of(ended)) < 3_000


def test_a_key_that_is_none_is_refused() -> None:
    for wrong in ({"private_key": "short", "subject": "mailto:a@b"}, {"private_key": PRIVATE_KEY}):
        with pytest.raises(ValueError, match=r"VAPID|subject"):
            PushSettings.model_validate(wrong)
    assert PRIVATE_KEY not in repr(
        PushSettings.model_validate({"private_key": PRIVATE_KEY, "subject": "mailto:a@b"})
    )


def test_an_application_that_logs_httpx_does_not_log_addresses_of_browsers() -> None:
    hide = _HideEndpoints(["https://push.example.com"])
    urls = (httpx.URL("https://push.example.com/send/secret"), httpx.URL("https://elsewhere.com/path"))
    shown = []
    for url in urls:
        record = logging.LogRecord("httpx", logging.INFO, "", 0, "HTTP Request: %s %s", ("POST", url), None)
        assert hide.filter(record)
        shown.append(record.getMessage())
    assert shown == [
        "HTTP Request: POST https://push.example.com",
        "HTTP Request: POST https://elsewhere.com/path",
    ]


def test_the_form_in_redis_is_read_back() -> None:
    one = PushSubscription("https://a/x", "p", "a", "k", 17)
    assert PushSubscription.unpack(one.pack()) == one
