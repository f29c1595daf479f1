"""What a Redis URL says is honoured as the redis package honours it, or refused by name; a password is never shown."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from redis.asyncio.connection import URL_QUERY_ARGUMENT_PARSERS

from selfhost_transport.errors import InvalidArgument, StoreUnavailable
from selfhost_transport.redis_io.address import Address
from selfhost_transport.redis_io.address_resolver import Sentinels, address_resolver
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.redis_io.embedded import EmbeddedRedis
from selfhost_transport.redis_io.link import Link
from selfhost_transport.redis_io.url_options import read
from tests.redis_io.tls import tls_port, write_certificate


def context(query: str) -> ssl.SSLContext:
    tls = Address.parse(f"rediss://h:1/0?{query}").tls
    assert tls is not None
    return tls


@pytest.mark.parametrize(
    ("query", "verify", "checks_name"),
    [
        ("", ssl.CERT_REQUIRED, True),
        ("ssl_cert_reqs=required", ssl.CERT_REQUIRED, True),
        ("ssl_cert_reqs=optional", ssl.CERT_OPTIONAL, True),
        ("ssl_cert_reqs=none", ssl.CERT_NONE, False),
        ("ssl_cert_reqs=none&ssl_check_hostname=true", ssl.CERT_NONE, False),
        ("ssl_check_hostname=false", ssl.CERT_REQUIRED, False),
        ("ssl_check_hostname=0", ssl.CERT_REQUIRED, False),
        ("ssl_check_hostname=yes", ssl.CERT_REQUIRED, True),
    ],
)
def test_how_a_certificate_is_looked_at(query: str, verify: ssl.VerifyMode, checks_name: bool) -> None:
    tls = context(query)
    assert (tls.verify_mode, tls.check_hostname) == (verify, checks_name)


def test_further_tls_options() -> None:
    assert context("ssl_min_version=772").minimum_version is ssl.TLSVersion.TLSv1_3
    assert context("ssl_min_version=TLSv1_3").minimum_version is ssl.TLSVersion.TLSv1_3
    strict = ssl.VerifyFlags.VERIFY_X509_STRICT
    assert context("ssl_include_verify_flags=[VERIFY_X509_STRICT]").verify_flags & strict
    assert (
        not context(
            "ssl_include_verify_flags=VERIFY_X509_STRICT&ssl_exclude_verify_flags=VERIFY_X509_STRICT"
        ).verify_flags
        & strict
    )
    ciphers = {cipher["name"] for cipher in context("ssl_ciphers=ECDHE-RSA-AES256-GCM-SHA384").get_ciphers()}
    assert "ECDHE-RSA-AES256-GCM-SHA384" in ciphers and "ECDHE-RSA-AES128-GCM-SHA256" not in ciphers


def test_what_is_in_the_query_besides() -> None:
    address = Address.parse(
        "redis://h:1/4?db=3&username=u&password=p%2Fw&client_name=chat&socket_timeout=2.5&socket_connect_timeout=1"
        "&socket_keepalive=no&protocol=2&health_check_interval=30"
    )
    assert (address.database, address.username, address.password) == (3, "u", "p/w")
    assert (address.client_name, address.timeout_s, address.connect_timeout_s) == ("chat", 2.5, 1.0)
    assert not address.keepalive
    assert Address.parse("redis://:a%3Fb%23c%40d%2Fe%25@h").password == "a?b#c@d/e%"
    assert Address.parse("unix://u:p@/run/my%20redis.sock?db=2") == Address(
        path="/run/my redis.sock", database=2, username="u", password="p"
    )


def test_sentinels_have_the_times_and_a_login_of_their_own() -> None:
    where = address_resolver(
        "redis+sentinel://u:p@one,two:5/s/3?sentinel_password=sp&socket_timeout=2&client_name=chat&socket_connect_timeout=1"
    )
    assert isinstance(where, Sentinels)
    assert (where.server.database, where.server.timeout_s, where.server.password) == (3, 2.0, "p")
    assert [(s.port, s.password, s.username, s.database, s.connect_timeout_s) for s in where.sentinels] == [
        (26379, "sp", None, 0, 1.0),
        (5, "sp", None, 0, 1.0),
    ]


REFUSED = {
    "redis://h?max_connections=5": "max_connections",
    "redis://h?timeout=5": "timeout",
    "redis://h?retry_on_timeout=yes": "retry_on_timeout",
    "redis://h?retry_on_error=x": "retry_on_error",
    "redis://h?decode_responses=1": "decode_responses",
    "redis://h?legacy_responses=1": "legacy_responses",
    "redis://h?socket_read_size=1": "socket_read_size",
    "redis://h?tpyo=1": "tpyo",
    "redis://h?protocol=3": "protocol",
    "redis://h?health_check_interval=1": "health_check_interval",
    "redis://h?db=": "db has no value",
    "redis://h?db=x": "db is a number",
    "redis://h?db=-1": "db is a number",
    "redis://h?db=1&db=2": "db is given twice",
    "redis://h?socket_timeout=0": "socket_timeout",
    "redis://h?socket_timeout=soon": "socket_timeout",
    "redis://h?socket_connect_timeout=nan": "socket_connect_timeout",
    "redis://h?client_name=my%20chat": "client_name",
    "redis://h?ssl_cert_reqs=none": "ssl_cert_reqs needs TLS",
    "unix:///s?ssl_ca_certs=x": "ssl_ca_certs needs TLS",
    "rediss://h?ssl_cert_reqs=maybe": "ssl_cert_reqs",
    "rediss://h?ssl_min_version=1": "ssl_min_version",
    "rediss://h?ssl_include_verify_flags=NONE_SUCH": "ssl_include_verify_flags",
    "rediss://h?ssl_ca_certs=/no/such/file": "ssl_ca_certs: /no/such/file",
    "rediss://h?ssl_ca_path=/no/such/folder": "ssl_ca_path: /no/such/folder",
    "rediss://h?ssl_certfile=/no/such/cert": "ssl_certfile: /no/such/cert",
    "rediss://h?ssl_keyfile=/no/such/key": "ssl_keyfile needs ssl_certfile",
    "rediss://h?ssl_ca_certs=/etc/hostname": "/etc/hostname",
    "rediss://h?ssl_ciphers=NONE": "ssl_ciphers",
    "rediss://h?ssl_validate_ocsp=1": "ssl_validate_ocsp",
    "redis://h:1/abc": "the database is a number, not 'abc'",
    "redis://h:1/1/2": "the database is a number",
    "redis://h:0": "the port",
    "redis://h:99999": "the port",
    "redis://u:se?cret@h:1": "the port",
    "redis://u:12?se-cret@h:1/0": "cannot be read",
    "redis://u:se#cret@h:1": "%23",
    "redis://u:p@[secret": "host cannot be read",
    "unix://": "path of a socket",
    "redis+sentinel://h/s?tpyo=1": "tpyo",
    "redis+sentinel://h/s/abc": "the database is a number",
    "redis+sentinel://h,/s": "a host is missing",
    "redis+cluster://h?db=1": "no databases",
    "redis+cluster://h?max_connections=1": "max_connections",
    "redis+cluster://h,,i": "a host is missing",
}  # fmt: skip


@pytest.mark.parametrize("url", REFUSED)
def test_what_cannot_be_honoured_is_refused_by_name(url: str) -> None:
    for opened in (address_resolver, RedisConnection):
        with pytest.raises(InvalidArgument) as refused:
            opened(url)
        message = str(refused.value)
        assert REFUSED[url] in message and "\n" not in message
        assert "secret" not in message and "se-cret" not in message


@pytest.mark.parametrize("name", URL_QUERY_ARGUMENT_PARSERS)
def test_no_option_of_the_redis_package_is_ignored(name: str) -> None:
    """Each is honoured, or refused: never taken without a word."""
    try:
        options = read(f"{name}=2", tls=True)
    except InvalidArgument as refused:
        assert name in str(refused)
    else:
        met_anyway = {"protocol", "socket_keepalive", "ssl_check_hostname"}
        assert name in met_anyway or options != read("", tls=False)


async def test_options_reach_the_server() -> None:
    with EmbeddedRedis() as server:
        connection = RedisConnection(f"{server.url}?client_name=chat-1&socket_timeout=0.3")
        assert await connection.command("CLIENT", "GETNAME") == b"chat-1"
        with pytest.raises(StoreUnavailable):
            # Longer than the connection waits for a reply.
            await connection.command("BLPOP", "nothing", 3)
        assert await connection.command("PING", retry_s=2) == b"PONG"
        await connection.close()


async def test_keepalive_is_a_property_of_the_socket(redis_url: str) -> None:
    for option, wanted in (("", True), ("?socket_keepalive=0", False)):
        link = await Link.open(Address.parse(redis_url + option), lambda _: None, lambda _: None, 5)
        assert link.keeps_alive is wanted
        link.close()


async def test_tls_with_a_certificate_of_ones_own(redis_url: str, tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path)
    port = Address.parse(redis_url).port
    async with tls_port(port, certificate, key) as tls:
        for url in (
            f"rediss://127.0.0.1:{tls}/0?ssl_ca_certs={certificate}",
            f"rediss://localhost:{tls}/0?ssl_ca_certs={certificate}&ssl_check_hostname=false",
            f"rediss://127.0.0.1:{tls}/0?ssl_cert_reqs=none",
        ):
            connection = RedisConnection(url)
            assert await connection.command("PING") == b"PONG"
            await connection.close()
        for url in (f"rediss://127.0.0.1:{tls}/0", f"rediss://localhost:{tls}/0?ssl_ca_certs={certificate}"):
            connection = RedisConnection(url, timeout_s=0.5)
            with pytest.raises(StoreUnavailable, match="its certificate is not accepted"):
                await connection.command("PING")
            await connection.close()
