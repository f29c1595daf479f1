"""How requests are authenticated, as OpenAPI says it: the schemes, and which requests need none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

SCHEMES: Final[Mapping[str, Mapping[str, str]]] = {
    "key": {
        "type": "http",
        "scheme": "basic",
        "description": "An API key: the name `appId.keyId` is the user, the secret the password.",
    },
    "token": {
        "type": "http",
        "scheme": "bearer",
        "description": "A token: one that the gateway issued, an Ably JWT, or a JWT of a configured issuer. A key, "
        "`name:secret`, is accepted too.",
    },
    "keyInQuery": {
        "type": "apiKey",
        "in": "query",
        "name": "key",
        "description": "An API key, `name:secret`, for clients that cannot send headers.",
    },
    "tokenInQuery": {
        "type": "apiKey",
        "in": "query",
        "name": "access_token",
        "description": "A token, for clients that cannot send headers, such as `EventSource`.",
    },
}
PUBLIC: Final = frozenset({"/healthz", "/readyz"})
_METHODS: Final = frozenset({"get", "put", "post", "delete", "options", "head", "patch"})


def add_security(openapi: dict[str, Any]) -> None:
    """Put the schemes into a description: any one of them for each request, and none for those of `PUBLIC`."""
    openapi.setdefault("components", {})["securitySchemes"] = {
        name: dict(scheme) for name, scheme in SCHEMES.items()
    }
    openapi["security"] = [{name: []} for name in SCHEMES]
    for path in PUBLIC & openapi["paths"].keys():
        for method in _METHODS & openapi["paths"][path].keys():
            openapi["paths"][path][method]["security"] = []
