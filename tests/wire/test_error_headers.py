"""The headers of a refusal."""

from __future__ import annotations

import pytest

from selfhost_transport.errors import ErrorInfo
from selfhost_transport.wire.error_headers import error_headers


@pytest.mark.parametrize(
    ("status", "retry_after_ms", "seconds"),
    [
        (429, 1_001, "2"),
        (429, None, "1"),
        (503, 1, "1"),
        (503, 60_000, "60"),
        (400, 5_000, None),
        (500, None, None),
    ],
)
def test_what_may_be_sent_again_says_when(
    status: int, retry_after_ms: int | None, seconds: str | None
) -> None:
    headers = error_headers(ErrorInfo(40000, status, "later", detail={"retryAfterMs": retry_after_ms}))
    assert headers.get("Retry-After") == seconds


def test_a_message_is_printable_in_a_header() -> None:
    headers = error_headers(ErrorInfo(40000, 400, "a\r\nSet-Cookie: b\x00 né"))
    assert headers == {"X-Ably-Errorcode": "40000", "X-Ably-Errormessage": "a  Set-Cookie: b  n?"}
