"""`doctor CHANNEL`: which rule holds and what each kind of credential permits (RUL-2, RUL-3)."""

from __future__ import annotations

from pathlib import Path

import pytest

from selfhost_transport.commands.doctor import explain_channel
from selfhost_transport.settings import Settings, load_settings

FILE = """
[[keys]]
name = "app.web"
secret = "s"
capability = { "conversations:*" = ["subscribe", "publish", "turn-start"], "notes" = ["history"] }

[[keys]]
name = "app.server"
secret = "s"

[[issuers]]
issuer = "https://login.example.com/"
jwks_file = "jwks.json"
capability = { "conversations:*" = ["subscribe", "turn-cancel"] }

[[trusted_proxies]]
addresses = ["10.0.0.0/8"]
header = "X-Forwarded-User"
capability = { "notes" = ["publish"] }

[[namespaces]]
id = "conversations"
agent = "assistant"
policy = "queue"
retention = "30d"
max_active = 2
"""
CONVERSATION = """\
ok namespace conversations:42: rule conversations: agent assistant, policy queue, max_active=2, queue_cap=100, \
retention=30 days, 0:00:00
ok capability conversations:42: key app.web: publish, subscribe, turn-start
ok capability conversations:42: key app.server: everything
ok capability conversations:42: issuer https://login.example.com/: subscribe, turn-cancel
ok capability conversations:42: proxies 10.0.0.0/8 (X-Forwarded-User): nothing"""
NOTES = """\
ok namespace notes: rule *: plain pub/sub, no agent is bound
ok capability notes: key app.web: history
ok capability notes: key app.server: everything
ok capability notes: issuer https://login.example.com/: nothing
ok capability notes: proxies 10.0.0.0/8 (X-Forwarded-User): publish, turn-cancel, turn-start"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    path = tmp_path / "config.toml"
    path.write_text(FILE)
    return load_settings(path)


def reported(settings: Settings, channel: str) -> str:
    found = explain_channel(settings, channel)
    return "\n".join(f"{finding.verdict} {finding.subject} {finding.detail}" for finding in found)


@pytest.mark.parametrize(("channel", "golden"), [("conversations:42", CONVERSATION), ("notes", NOTES)])
def test_rul_3_rule_and_rights(settings: Settings, channel: str, golden: str) -> None:
    assert reported(settings, channel) == golden


def test_rul_2_a_namespace_ends_at_the_first_colon(settings: Settings) -> None:
    assert "rule conversations:" in reported(settings, "conversations:x:y")
    for other in ("conversation", "conversation:x", "conversationsx:y"):
        assert f"{other}: rule *: plain pub/sub" in reported(settings, other)


def test_a_configuration_that_lets_no_one_in_is_said() -> None:
    assert "warn capability x: no client can connect" in reported(Settings(), "x")
