"""Keys and token requests, with those that the SDKs really sent (protocol sections 10.1 to 10.3)."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import replace
from typing import Any

import pytest

from selfhost_transport.errors import BadRequest, CapabilityError, InvalidArgument, Unauthorized
from selfhost_transport.wire.capability import Capability
from selfhost_transport.wire.tokens import (
    MAX_TTL_MS,
    TIMESTAMP_WINDOW_MS,
    ApiKey,
    TokenDetails,
    TokenRequest,
    base64_text,
    parse_basic,
    parse_bearer,
)
from tests.wire.recordings import SECRET, events

RECORDED = [event["body"] for _, _, event in events("http-req") if event["path"].endswith("/requestToken")]
NOW = 1_763_000_000_000
REQUEST = TokenRequest("app.key", "60000", '{"a":["publish"]}', "me", str(NOW), "n" * 16)
SIGNED = replace(REQUEST, mac=REQUEST.compute_mac("secret"))


def test_the_recordings_are_there() -> None:
    assert len(RECORDED) > 10
    assert any(body["capability"] is None for body in RECORDED)


@pytest.mark.parametrize("body", RECORDED, ids=lambda body: body["nonce"])
def test_macs_of_the_sdks_verify(body: dict[str, Any]) -> None:
    request = TokenRequest.from_wire(body)
    request.check_mac(SECRET)
    request.check_fresh(body["timestamp"] + 1000)
    with pytest.raises(Unauthorized):
        request.check_mac(SECRET + "x")
    with pytest.raises(Unauthorized):
        replace(request, client_id="someone-else").check_mac(SECRET)


def test_numbers_may_be_text() -> None:
    # An authUrl rebuilds the request from query parameters.
    wire = SIGNED.to_wire()
    request = TokenRequest.from_wire({**wire, "ttl": "60000", "timestamp": str(NOW)})
    assert request == TokenRequest.from_wire(wire) == SIGNED
    request.check_mac("secret")
    assert request.ttl_ms() == 60_000


@pytest.mark.parametrize("mac", [None, "", "x", "é", SIGNED.compute_mac("other")])
def test_wrong_mac(mac: str | None) -> None:
    with pytest.raises(Unauthorized) as caught:
        replace(SIGNED, mac=mac).check_mac("secret")
    assert caught.value.info.code == 40101


@pytest.mark.parametrize(
    "timestamp", [None, "0", str(NOW - TIMESTAMP_WINDOW_MS - 1), str(NOW + TIMESTAMP_WINDOW_MS + 1)]
)
def test_a_signed_request_needs_a_current_timestamp(timestamp: str | None) -> None:
    with pytest.raises(Unauthorized) as caught:
        replace(SIGNED, timestamp=timestamp).check_fresh(NOW)
    assert caught.value.info.code == 40104


@pytest.mark.parametrize("nonce", [None, "", "short"])
def test_a_signed_request_needs_a_nonce(nonce: str | None) -> None:
    with pytest.raises(Unauthorized) as caught:
        replace(SIGNED, nonce=nonce).check_fresh(NOW)
    assert caught.value.info.code == 40105


def test_an_unsigned_request_needs_neither() -> None:
    TokenRequest("app.key").check_fresh(NOW)
    with pytest.raises(Unauthorized):
        TokenRequest("app.key", timestamp="5").check_fresh(NOW)


@pytest.mark.parametrize(
    ("ttl", "ms"), [(None, 3_600_000), (0, 3_600_000), ("", 3_600_000), (1, 1), (MAX_TTL_MS, MAX_TTL_MS)]
)
def test_ttl(ttl: object, ms: int) -> None:
    assert TokenRequest.from_wire({"keyName": "a.b", "ttl": ttl}).ttl_ms() == ms


@pytest.mark.parametrize("ttl", [-1, MAX_TTL_MS + 1, "x", 1.5, True, [], "1e3", 10**30, float("inf")])
def test_bad_ttl(ttl: object) -> None:
    with pytest.raises(InvalidArgument) as caught:
        TokenRequest.from_wire({"keyName": "a.b", "ttl": ttl}).ttl_ms()
    assert (caught.value.info.code, caught.value.info.status_code) == (40003, 400)


def test_the_default_ttl_is_within_a_lower_maximum() -> None:
    assert TokenRequest("a.b").ttl_ms(maximum=1000) == 1000


def test_grant() -> None:
    key = Capability.parse('{"*": ["publish", "subscribe"]}')
    assert replace(REQUEST, capability=None).grant(key).text == '{"*": ["publish", "subscribe"]}'
    assert REQUEST.grant(key).text == '{"a":["publish"]}'
    with pytest.raises(CapabilityError) as caught:
        replace(REQUEST, capability='{"a":["history"]}').grant(key)
    assert (caught.value.info.code, caught.value.info.status_code) == (40160, 401)
    with pytest.raises(BadRequest):
        replace(REQUEST, capability='{"a":[]}').grant(key)


def test_an_empty_client_id_is_refused() -> None:
    SIGNED.check_client_id()
    with pytest.raises(BadRequest) as caught:
        replace(SIGNED, client_id="").check_client_id()
    assert caught.value.info.code == 40012


@pytest.mark.parametrize(
    "wire",
    [
        {},
        {"keyName": ""},
        {"keyName": 5},
        {"keyName": "a.b", "capability": {}},
        {"keyName": "a.b", "nonce": 1},
    ],
)
def test_malformed_requests(wire: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        TokenRequest.from_wire(wire)


def test_api_key() -> None:
    key = ApiKey.parse("app.key:s3cret-_")
    assert (key.name, key.secret, key.app_id) == ("app.key", "s3cret-_", "app")
    assert "s3cret" not in repr(key)


@pytest.mark.parametrize(
    "text",
    ["", "x", "app.key", "app.key:", "app.key:a:b", "app.key:a.b", "appkey:x", "a b.c:x", "app.key:x\n"],
)
def test_bad_api_key(text: str) -> None:
    with pytest.raises(Unauthorized) as caught:
        ApiKey.parse(text)
    assert (caught.value.info.code, caught.value.info.status_code) == (40101, 401)


def test_authorization_values() -> None:
    assert parse_basic(b64encode(b"app.key:x").decode()) == ApiKey("app.key", "x")
    for bad in ("%%%", "", b64encode(b"\xff").decode(), b64encode(b"nokey").decode()):
        with pytest.raises(Unauthorized):
            parse_basic(bad)
    jwt = "eyJhbGciOiJIUzI1NiJ9.e30.c2ln"
    assert parse_bearer(jwt) == parse_bearer(b64encode(jwt.encode()).decode()) == jwt
    assert base64_text(b64encode("ünï".encode()).decode()) == "ünï"


def test_token_details_are_read_back_and_kept_out_of_logs() -> None:
    details = TokenDetails("tok", "app.key", 1, 2, '{"*":["*"]}', "me")
    assert TokenDetails.from_wire(details.to_wire()) == details
    assert TokenDetails.from_wire({"token": "t", "expires": None}) == TokenDetails("t")
    assert TokenDetails("t").to_wire() == {"token": "t"}
    assert "tok'" not in repr(details)
    with pytest.raises(BadRequest):
        TokenDetails.from_wire({})
