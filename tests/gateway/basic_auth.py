"""The header of a key."""

from __future__ import annotations

import base64


def basic(key: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(key.encode()).decode()}
