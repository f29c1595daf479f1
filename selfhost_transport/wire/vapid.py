"""Keys of VAPID (RFC 8292): how a gateway proves to push services that it is the one that a browser has subscribed to.

A private key is the 32 bytes of a P-256 scalar in base64url without padding, the public key its uncompressed point: the
form of `web-push` and of browsers.
"""

from __future__ import annotations

import base64
import binascii
from functools import cache

_SCALAR_BYTES = 32


def decode(text: str) -> bytes:
    """Base64url, padded or not. Raises ValueError."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError("not base64url") from error


def encode(value: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def new_private_key() -> str:
    """A new key."""
    from cryptography.hazmat.primitives.asymmetric import ec

    scalar = ec.generate_private_key(ec.SECP256R1()).private_numbers().private_value
    return encode(scalar.to_bytes(_SCALAR_BYTES, "big"))


@cache
def public_key_of(private_key: str) -> str:
    """The public key that browsers subscribe with. Raises ValueError."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    try:
        scalar = decode(private_key)
    except ValueError:
        scalar = b""
    if len(scalar) != _SCALAR_BYTES:
        raise ValueError("a VAPID key is 32 bytes in base64url: `selfhost-transport push keys` makes one")
    key = ec.derive_private_key(int.from_bytes(scalar, "big"), ec.SECP256R1())
    return encode(key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint))


def require_point(text: str) -> str:
    """A browser's public key: an uncompressed point of P-256. Raises ValueError."""
    from cryptography.hazmat.primitives.asymmetric import ec

    ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), decode(text))
    return text
