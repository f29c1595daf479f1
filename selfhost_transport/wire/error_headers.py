"""What the headers of a refusal tell, whichever HTTP interface it is of."""

from __future__ import annotations

import math
import re
from typing import Final

from selfhost_transport.errors import ErrorInfo

_LATER: Final = (429, 503)
"""Statuses that ask to send the same again later."""
_NOT_PRINTABLE: Final = re.compile(r"[^\x20-\x7e]")


def error_headers(info: ErrorInfo) -> dict[str, str]:
    """Code and sentence of an error, and when to try again."""
    # A header has no control characters: with one, the server could send no answer at all.
    message = _NOT_PRINTABLE.sub(" ", info.message.encode("ascii", "replace").decode())
    headers = {"X-Ably-Errorcode": str(info.code), "X-Ably-Errormessage": message}
    return headers | retry_headers(info)


def retry_headers(info: ErrorInfo) -> dict[str, str]:
    """When to ask again, in whole seconds, where an answer says "later"."""
    if info.status_code not in _LATER:
        return {}
    return {"Retry-After": str(max(1, math.ceil((info.retry_after_ms or 0) / 1000)))}
