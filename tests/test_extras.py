"""The command that a message gives installs the extra from where this copy of the package came."""

from __future__ import annotations

import importlib.metadata
import json
import shlex
from typing import Any

import pytest
from packaging.requirements import Requirement

from selfhost_transport import extras


@pytest.mark.parametrize(
    ("origin", "arguments"),
    [
        (None, ["selfhost-transport[openai]"]),
        ({"url": "file:///home/ann/my%20clone", "dir_info": {}}, ["/home/ann/my clone[openai]"]),
        ({"url": "file:///src", "dir_info": {"editable": True}}, ["-e", "/src[openai]"]),
        (
            {"url": "file:///d/selfhost_transport-0.1.0-py3-none-any.whl", "archive_info": {}},
            ["selfhost-transport[openai] @ file:///d/selfhost_transport-0.1.0-py3-none-any.whl"],
        ),
        (
            {"url": "https://git.example.com/sht", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
            ["selfhost-transport[openai] @ git+https://git.example.com/sht@abc"],
        ),
    ],
)
def test_the_command_names_the_origin(
    monkeypatch: pytest.MonkeyPatch, origin: dict[str, Any] | None, arguments: list[str]
) -> None:
    class Installed:
        def read_text(self, name: str) -> str | None:
            assert name == "direct_url.json"
            return None if origin is None else json.dumps(origin)

    monkeypatch.setattr(extras, "distribution", lambda name: Installed())
    words = shlex.split(extras.install_command("openai"))
    assert words == ["pip", "install", *arguments]
    if "dir_info" not in (origin or {}):
        assert Requirement(words[-1]).extras == {"openai"}


def test_every_extra_that_a_message_names_exists() -> None:
    known = set(importlib.metadata.metadata("selfhost-transport").get_all("Provides-Extra") or ())
    assert {"embedded", "loadtest", "openai", "anthropic", "pydantic-ai", "otel"} <= known
