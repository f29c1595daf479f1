"""How an extra of this package is installed, as this copy of it was: from an index, a folder, a file or a repository."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any
from urllib.parse import unquote, urlsplit

_NAME = "selfhost-transport"


def install_command(extra: str) -> str:
    """The command of pip, for a message to a person."""
    try:
        recorded = distribution(_NAME).read_text("direct_url.json")
    except PackageNotFoundError:
        recorded = None
    # PEP 610: absent where the package came from an index.
    return f"pip install {_requirement(extra, json.loads(recorded) if recorded else None)}"


def _requirement(extra: str, origin: dict[str, Any] | None) -> str:
    if origin is None:
        return f"'{_NAME}[{extra}]'"
    if (folder := origin.get("dir_info")) is not None:
        path = unquote(urlsplit(origin["url"]).path)
        return f"{'-e ' if folder.get('editable') else ''}'{path}[{extra}]'"
    version = origin.get("vcs_info", {})
    url = f"{version['vcs']}+{origin['url']}@{version['commit_id']}" if version else origin["url"]
    return f"'{_NAME}[{extra}] @ {url}'"
