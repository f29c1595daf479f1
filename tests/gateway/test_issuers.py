"""Identity providers: whose tokens count, and where their keys come from (AUT-2)."""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from gateway.auth.authenticator import Authenticator, Credential
from gateway.auth.callers import RequestInfo
from gateway.auth.jwks import MAX_AGE_S, MAX_DOCUMENT, MAX_KEYS, REFRESH_PAUSE_S, KeySet, parse_keys
from selfhost_transport.errors import InvalidArgument, StoreUnavailable, TransportError
from selfhost_transport.settings import IssuerRule, KeyRule, Settings, load_settings
from tests.gateway.tokens import ISSUER, Provider, token

PROVIDER = Provider()


def authenticator(**rule: Any) -> Authenticator:
    """Accepts the provider's tokens by its RSA key, unless said otherwise."""
    chosen = {"issuer": ISSUER, "public_key": PROVIDER.pem("RS256"), "audience": "chat", **rule}
    key = KeyRule.model_validate({"name": "app.key", "secret": "secret"})
    return Authenticator(Settings(keys=(key,), issuers=(IssuerRule.model_validate(chosen),)))


async def identified(text: str, auth: Authenticator | None = None, **query: str) -> Credential:
    return await (auth or authenticator()).of_connection(RequestInfo("/", {}, query, None, None, text))


async def refused(text: str, auth: Authenticator | None = None, **query: str) -> int:
    with pytest.raises(TransportError) as error:
        await identified(text, auth, **query)
    return error.value.info.code


async def test_a_token_of_the_provider_is_an_identity() -> None:
    found = await identified(PROVIDER.token())
    assert (found.identity.client_id, found.app_id) == ("ann", ISSUER)
    assert found.capability.allows("publish", "any:channel")
    assert found.expires_ms is not None


async def test_claims_may_have_other_names() -> None:
    auth = authenticator(client_id_claim="email", capability_claim="rights")
    rights = {"conv:1": ["subscribe", "message-delete-any"]}
    found = await identified(PROVIDER.token(email="ann@x.org", rights=rights), auth)
    assert found.identity.client_id == "ann@x.org"
    assert found.capability.allows("subscribe", "conv:1")
    # Beyond what the issuer may give, nothing; and nothing without the claim.
    assert not found.capability.allows("message-delete-any", "conv:1")
    assert (await identified(PROVIDER.token(email="ann@x.org"), auth)).capability.is_empty


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({"aud": "other"}, 40144),
        ({"aud": None}, 40144),
        ({"iat": time.time() - 60, "exp": time.time() - 1}, 40142),
        ({"exp": None}, 40144),
        ({"iat": None}, 40144),
        ({"nbf": time.time() + 86_400}, 40144),
        ({"sub": "*"}, 40144),
        ({"sub": 7}, 40144),
        ({"sub": ""}, 40144),
    ],
)
async def test_claims_that_do_not_hold(claims: dict[str, Any], code: int) -> None:
    assert await refused(PROVIDER.token(**claims)) == code


async def test_only_the_providers_own_signature_counts() -> None:
    assert await refused(Provider().token()) == 40144
    # An algorithm that is not accepted, though the signature is good.
    elliptic = authenticator(public_key=PROVIDER.pem("ES256"), algorithms=("ES256",))
    assert (await identified(PROVIDER.token("ES256"), elliptic)).identity.client_id == "ann"
    assert await refused(PROVIDER.token("RS256"), elliptic) == 40144
    # The public key as the secret of an HS256 token.
    assert await refused(confused(PROVIDER.pem("RS256"))) == 40144
    # Another issuer's name does not let a token through as one of an API key.
    assert await refused(PROVIDER.token(iss="https://elsewhere.example.com/")) == 40101


async def test_the_query_may_not_contradict_the_token() -> None:
    assert await refused(PROVIDER.token(), clientId="bob") == 40102
    assert (await identified(PROVIDER.token(), clientId="ann")).identity.client_id == "ann"


async def test_tokens_of_keys_are_accepted_beside(tmp_path: Any) -> None:
    path = tmp_path / "jwks.json"
    path.write_bytes(PROVIDER.jwks())
    auth = authenticator(public_key=None, jwks_file=path)
    assert (await identified(token(client_id="bob"), auth)).identity.client_id == "bob"
    for algorithm in ("RS256", "ES256"):
        assert (await identified(PROVIDER.token(algorithm), auth)).identity.client_id == "ann"
    assert await refused(PROVIDER.token(kid="unknown"), auth) == 40144


async def test_without_keys_no_client_learns_that_the_token_is_bad(tmp_path: Any) -> None:
    auth = authenticator(public_key=None, jwks_file=tmp_path / "missing.json")
    with pytest.raises(StoreUnavailable):
        await identified(PROVIDER.token(), auth)


def confused(secret: str) -> str:
    """An HS256 token that names the issuer, made by hand: libraries refuse to sign with a public key."""
    now = time.time()
    parts = (
        {"alg": "HS256", "kid": "RS256"},
        {"iss": ISSUER, "sub": "ann", "aud": "chat", "iat": now, "exp": now + 60},
    )
    signed = b".".join(urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts)
    mac = hmac.digest(secret.encode(), signed, "sha256")
    return b".".join((signed, urlsafe_b64encode(mac).rstrip(b"="))).decode()


class Document:
    """A JWKS document that changes, with a clock that is set by hand."""

    def __init__(self, content: bytes | Exception) -> None:
        self.content = content
        self.reads = 0
        self.now = 1000.0
        self.keys = KeySet(self.read, lambda: self.now)

    async def read(self) -> bytes:
        self.reads += 1
        if isinstance(self.content, Exception):
            raise self.content
        return self.content


class TestKeySet:
    async def test_it_is_read_once_and_again_for_an_unknown_key(self) -> None:
        document = Document(PROVIDER.jwks("RS256"))
        for _ in range(3):
            assert await document.keys.find("RS256", "RS256") is not None
        assert document.reads == 1
        document.content = PROVIDER.jwks()
        document.now += REFRESH_PAUSE_S + 1
        assert await document.keys.find("ES256", "ES256") is not None
        assert document.reads == 2

    async def test_made_up_keys_do_not_make_it_ask_all_the_time(self) -> None:
        document = Document(PROVIDER.jwks())
        for number in range(50):
            assert await document.keys.find(f"made-up-{number}", "RS256") is None
        assert document.reads == 1

    async def test_a_withdrawn_key_is_noticed_in_time(self) -> None:
        document = Document(PROVIDER.jwks())
        assert await document.keys.find("RS256", "RS256") is not None
        document.content = PROVIDER.jwks("ES256")
        document.now += MAX_AGE_S + 1
        assert await document.keys.find("RS256", "RS256") is None

    async def test_keys_stay_in_use_while_the_provider_is_away(self) -> None:
        document = Document(PROVIDER.jwks())
        assert await document.keys.find("RS256", "RS256") is not None
        document.content = OSError("away")
        document.now += MAX_AGE_S + 1
        assert await document.keys.find("RS256", "RS256") is not None
        assert await document.keys.find("RS256", "RS256") is not None
        assert document.reads == 2

    async def test_a_token_without_a_kid_is_of_the_only_key_that_fits(self) -> None:
        assert await Document(PROVIDER.jwks()).keys.find(None, "RS256") is not None

    @pytest.mark.parametrize(
        "make", [lambda: b"[]", lambda: b"{", lambda: b'{"keys":[' + b"{}," * MAX_KEYS + b"{}]}"]
    )
    async def test_documents_that_are_none(self, make: Callable[[], bytes]) -> None:
        with pytest.raises(ValueError):
            list(parse_keys(make()))

    async def test_keys_for_other_uses_and_of_unknown_kinds_are_left_out(self) -> None:
        document = b'{"keys":[{"kty":"RSA","use":"enc","n":"AQAB","e":"AQAB"},{"kty":"XYZ"},7]}'
        assert list(parse_keys(document)) == []


@contextmanager
def served(content: bytes) -> Iterator[tuple[str, list[str]]]:
    """A web server with one document: its address, and the paths that were asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/jwks.json", asked
        finally:
            server.shutdown()
            thread.join()


async def test_keys_are_fetched_once_for_many() -> None:
    with served(PROVIDER.jwks()) as (url, asked):
        auth = authenticator(public_key=None, jwks_url=url)
        found = await asyncio.gather(*(identified(PROVIDER.token("ES256"), auth) for _ in range(20)))
    assert {credential.identity.client_id for credential in found} == {"ann"}
    assert asked == ["/jwks.json"]


async def test_a_document_without_end_is_not_read() -> None:
    with served(PROVIDER.jwks() + b" " * MAX_DOCUMENT) as (url, _), pytest.raises(StoreUnavailable):
        await identified(PROVIDER.token(), authenticator(public_key=None, jwks_url=url))


@pytest.mark.parametrize("sources", [{}, {"jwks_file": "a", "public_key": "b"}])
def test_exactly_one_source_of_keys(sources: dict[str, str]) -> None:
    with pytest.raises(InvalidArgument, match="exactly one of"):
        load_settings(issuers=[{"issuer": ISSUER, **sources}])
