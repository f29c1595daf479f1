"""Credentials do not reach the access log of a uvicorn that carries the gateway."""

from __future__ import annotations

import logging

import pytest

from gateway.auth.log_redaction import hide_credentials, redact


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("/?key=app.key:secret&v=6", "/?key=***&v=6"),
        ("/channels/x?access_token=a.b.c", "/channels/x?access_token=***"),
        ("/?v=6&accessToken=a.b.c&format=json", "/?v=6&accessToken=***&format=json"),
        ("/?v=6&resume=abc!1-2-3&recover=x", "/?v=6&resume=***&recover=***"),
        ("/?v=6&KEY=a:b", "/?v=6&KEY=***"),
        ("/keys/app.key/requestToken?clientId=ann", "/keys/app.key/requestToken?clientId=ann"),
    ],
)
def test_what_is_left_of_an_address(address: str, shown: str) -> None:
    assert redact(address) == shown


def test_the_loggers_of_the_server_leave_them_out(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        hide_credentials()
    access, error = logging.getLogger("uvicorn.access"), logging.getLogger("uvicorn.error")
    with caplog.at_level(logging.INFO):
        access.info('%s - "%s %s HTTP/%s" %d', "127.0.0.1:1", "GET", "/x?key=a.b:secret", "1.1", 200)
        error.info('%s - "WebSocket %s" [accepted]', "127.0.0.1:1", "/?access_token=secret&v=6")
    assert [record.getMessage() for record in caplog.records] == [
        '127.0.0.1:1 - "GET /x?key=*** HTTP/1.1" 200',
        '127.0.0.1:1 - "WebSocket /?access_token=***&v=6" [accepted]',
    ]
    assert len([one for one in access.filters if type(one).__module__ == "gateway.auth.log_redaction"]) == 1
