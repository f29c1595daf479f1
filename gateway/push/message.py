"""What is posted to a push service: an encrypted message (RFC 8291), and who sends it (VAPID, RFC 8292)."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import orjson

from selfhost_transport.errors import InvalidArgument
from selfhost_transport.extras import install_command
from selfhost_transport.settings import PushSettings
from selfhost_transport.store.ended_turns import Ended
from selfhost_transport.store.push import PushSubscription
from selfhost_transport.wire import vapid

if TYPE_CHECKING:
    from py_vapid import Vapid

_MOST_BYTES: Final = 3_000
"""Push services take 4,096 bytes, the encryption's own included."""
_SIGNED_S: Final = 12 * 3_600
_RENEWED_S: Final = 6 * 3_600


@dataclass(frozen=True, slots=True)
class PushRequest:
    """One request. `headers` hold a signature, and `url` is a secret of the browser's: neither is logged."""

    url: str
    headers: dict[str, str]
    body: bytes


class PushMessages:
    """Makes requests for a gateway's key. Raises InvalidArgument without the package of the extra `push`."""

    def __init__(self, settings: PushSettings) -> None:
        try:
            from py_vapid import Vapid02
            from pywebpush import WebPusher
        except ModuleNotFoundError as error:
            raise InvalidArgument(f"[push] needs a package: {install_command('push')}") from error
        if settings.private_key is None:
            raise InvalidArgument("[push] has no private_key: `selfhost-transport push keys` makes one")
        self._settings = settings
        self._encrypter: Final = WebPusher
        self._vapid: Vapid = Vapid02.from_raw(settings.private_key.get_secret_value().encode())
        # By origin: what proves who sends, and until when it is used.
        self._signed: dict[str, tuple[float, dict[str, str]]] = {}

    def request(self, to: PushSubscription, content: bytes, topic: str) -> PushRequest:
        """The request that delivers a content. Of messages with one topic a device that was off gets the last.

        Raises ValueError where a browser's keys are none.
        """
        keys = {"endpoint": to.endpoint, "keys": {"p256dh": to.p256dh, "auth": to.auth}}
        encrypted = self._encrypter(keys).encode(content, content_encoding="aes128gcm")
        headers = {
            **self._signature(to.endpoint),
            "content-encoding": "aes128gcm",
            "content-type": "application/octet-stream",
            "ttl": str(self._settings.ttl // timedelta(seconds=1)),
            "urgency": "normal",
            "topic": topic_of(topic),
        }
        return PushRequest(to.endpoint, headers, encrypted["body"])

    def _signature(self, endpoint: str) -> dict[str, str]:
        origin, now = origin_of(endpoint), time.time()
        until, headers = self._signed.get(origin, (0.0, {}))
        if now >= until:
            claims = {"aud": origin, "sub": self._settings.subject, "exp": int(now) + _SIGNED_S}
            headers = {"authorization": self._vapid.sign(claims)["Authorization"]}
            self._signed[origin] = (now + _RENEWED_S, headers)
        return headers


def content_of(ended: Ended) -> bytes:
    """What the page's service worker gets: no word of the conversation. The session is left out where its name is too long."""
    said = {
        "type": "turn.suspended" if ended.event == "suspended" else "turn.ended",
        "session": ended.session,
        "turnId": ended.turn_id,
        "status": ended.status.value,
        "time": ended.last.ms,
    }
    packed = orjson.dumps(said)
    return packed if len(packed) <= _MOST_BYTES else orjson.dumps({**said, "session": None})


def topic_of(text: str) -> str:
    """At most 32 letters of base64url (RFC 8030, section 5.4)."""
    return vapid.encode(hashlib.sha256(text.encode()).digest()[:24])


def origin_of(url: str) -> str:
    """Scheme, host and port, in small letters. Raises ValueError."""
    parts = urlsplit(url)
    default = {"https": 443, "http": 80}.get(parts.scheme)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    port = f":{parts.port}" if parts.port not in (None, default) else ""
    return f"{parts.scheme}://{host}{port}"


def is_push_service(endpoint: str, services: Sequence[str]) -> bool:
    """Whether an endpoint is at one of the configured push services: the gateway posts nowhere else for a browser."""
    try:
        parts, origin = urlsplit(endpoint), origin_of(endpoint)
    except ValueError:
        return False
    # What URL parsers disagree about leads elsewhere: user names, backslashes, anything not printable.
    plain = endpoint.isascii() and endpoint.isprintable() and not set(endpoint) & set("\\ @#")
    if not plain or parts.scheme not in ("https", "http") or not parts.hostname:
        return False
    return any(_covers(service, origin) for service in services)


def _covers(service: str, origin: str) -> bool:
    scheme, _, host = service.partition("://")
    if not host.startswith("*."):
        return origin_of(service) == origin
    found_scheme, _, found = origin.partition("://")
    return scheme == found_scheme and found.endswith(host[1:]) and len(found) > len(host) - 1
