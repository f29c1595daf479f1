"""Configuration: precedence, names, errors that say which key, secrets that stay secret."""

from __future__ import annotations

import pickle
from datetime import timedelta
from pathlib import Path

import pytest

from selfhost_transport.errors import InvalidArgument
from selfhost_transport.settings import ENV_PREFIX, Settings, load_settings, options
from selfhost_transport.settings_values import CrashRule, parse_duration, redact_url
from selfhost_transport.store import turn_store
from selfhost_transport.turns.commands import Policy

FULL = """
[redis]
url = "redis://user:hunter2@db:6379/3"
prefix = "chat"

[gateway]
port = 9000

[worker]
lease_ms = 500

[[keys]]
name = "app.key"
secret = "s3cret"
capability = { "conversations:*" = ["subscribe", "publish"] }
revocable_tokens = true

[[namespaces]]
id = "conversations"
agent = "assistant"
policy = "queue"
retention = "7d"
max_active = 2
queue_cap = 3
on_crash = "continue"
max_attempts = 5
deadline = "2s"

[[namespaces]]
id = "*"
agent = "other"
"""


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for option in options().values():
        monkeypatch.delenv(option.variable, raising=False)


@pytest.fixture
def full(tmp_path: Path) -> Path:
    return _file(tmp_path, FULL)


def _file(folder: Path, text: str) -> Path:
    path = folder / "config.toml"
    path.write_text(text)
    return path


def test_defaults_are_those_of_the_design() -> None:
    settings = load_settings()
    assert (settings.redis.prefix, settings.redis.buckets) == ("sht", None)
    assert settings.gateway.max_idle_ms == 15_000
    assert settings.gateway.connection_state_ttl_ms == 960_000
    assert settings.gateway.max_message_size == 65_536
    assert settings.gateway.resume_window_s == 960
    assert (settings.worker.lease_ms, settings.worker.max_attempts) == (10_000, 3)
    assert settings.worker.rollup_window_ms == 40
    assert settings.keys == () and settings.namespaces == ()


def test_flag_before_environment_before_file_before_default(
    full: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_settings().gateway.port == 8080
    assert load_settings(full).gateway.port == 9000
    monkeypatch.setenv("SELFHOST_TRANSPORT_PORT", "9001")
    assert load_settings(full).gateway.port == 9001
    assert load_settings(full, port=9002).gateway.port == 9002


def test_layers_merge_within_a_section(full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFHOST_TRANSPORT_REDIS", "redis://elsewhere")
    redis = load_settings(full, buckets=4).redis
    assert (redis.url, redis.prefix, redis.buckets) == ("redis://elsewhere", "chat", 4)


def test_an_override_of_none_and_an_empty_variable_are_not_given(
    full: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SELFHOST_TRANSPORT_PORT", "")
    assert load_settings(full, port=None).gateway.port == 9000


def test_the_file_can_be_named_by_the_environment(full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFHOST_TRANSPORT_CONFIG", str(full))
    assert load_settings().redis.prefix == "chat"


def test_lists_are_json_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFHOST_TRANSPORT_KEYS", '[{"name": "a.b", "secret": "c"}]')
    (key,) = load_settings().keys
    assert (key.name, key.secret.get_secret_value(), key.capability) == ("a.b", "c", {"*": ("*",)})
    monkeypatch.setenv("SELFHOST_TRANSPORT_KEYS", "a.b:c")
    with pytest.raises(InvalidArgument, match="SELFHOST_TRANSPORT_KEYS must be a JSON list"):
        load_settings()


def test_every_option_can_be_set_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for option in options().values():
        assert option.variable == ENV_PREFIX + option.name.upper()
        is_number = isinstance(option.default, int) or option.name == "buckets"
        if is_number and option.name != "rollup_window_ms":
            monkeypatch.setenv(
                option.variable, "1" if not option.name.endswith(("lease_ms", "for_ms")) else "1001"
            )
    settings = load_settings()
    assert settings.worker.lease_ms == 1001
    assert settings.gateway.dev is True
    assert settings.redis.buckets == settings.worker.concurrency == settings.gateway.processes == 1


def test_a_file_is_read_whole(full: Path) -> None:
    settings = load_settings(full)
    (key,) = settings.keys
    assert key.capability == {"conversations:*": ("subscribe", "publish")} and key.revocable_tokens
    rule = settings.namespaces[0]
    assert rule.policy is Policy.QUEUE and rule.on_crash is CrashRule.CONTINUE
    assert (rule.retention, rule.deadline) == (timedelta(days=7), timedelta(seconds=2))
    assert (rule.max_active, rule.queue_cap, rule.max_attempts) == (2, 3, 5)


@pytest.mark.parametrize(
    ("channel", "agent"),
    [
        ("conversations:x", "assistant"),
        ("conversations:x:y", "assistant"),
        ("conversations", "assistant"),
        ("conversation:x", "other"),
        ("Conversations:x", "other"),
        ("", "other"),
    ],
)
def test_rul_2_a_namespace_is_the_part_up_to_the_first_colon(full: Path, channel: str, agent: str) -> None:
    assert load_settings(full).namespace_for(channel).agent == agent


@pytest.mark.parametrize("policy", turn_store.Policy)
def test_every_policy_of_a_send_may_be_a_namespaces(policy: turn_store.Policy, tmp_path: Path) -> None:
    file = _file(tmp_path, f"[[namespaces]]\nid = 'x'\npolicy = '{policy}'\n")
    assert load_settings(file).namespace_for("x:1").policy.value == policy.value


def test_without_any_rule_a_channel_is_plain_and_kept() -> None:
    rule = load_settings().namespace_for("anything:at-all")
    assert rule.agent is None and rule.retention == timedelta(0) and rule.policy is Policy.CONCURRENT


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[gateway]\nporty = 1", r"line 2: porty in \[gateway\]: unknown key; did you mean 'port'\?"),
        ("[gatway]\nport = 1", r"line 1: gatway: unknown key; did you mean 'gateway'\?"),
        (
            "[[keys]]\nname='a.b'\nsecret='c'\ncapabilty={}",
            r"line 4: capabilty in \[\[keys\]\] number 1: unknown key; did you mean 'capability'",
        ),
        ("[gateway]\nport = 70000", r"line 2: port in \[gateway\]: "),
        (
            "[[keys]]\nname = 'a.b'\nsecret = 'c'\n\n[[keys]]\nname = 'ab'\nsecret = 'c'",
            r"line 6: name in \[\[keys\]\] number 2: has the wrong form: `appId.keyId`",
        ),
        ("[[keys]]\nname = 'a.b'", r"line 1: secret in \[\[keys\]\] number 1: is missing: "),
        ("[[namespaces]]\nid = 'a:b'", r"line 2: id in \[\[namespaces\]\] number 1: "),
        ("[[namespaces]]\nid = 'a'\npolicy = 'sometimes'", "line 3: policy in .*'merge'"),
        ("[[namespaces]]\nid = 'a'\nretention = '1y'", "line 3: retention in .*: a duration is"),
        ("[[namespaces]]\nid = 'a'\n[[namespaces]]\nid = 'a'", "config.toml: namespaces: 'a' is given twice"),
        (
            "[worker]\nrollup_window_ms = 30",
            "line 2: rollup_window_ms in .*must be one of 0, 20, 40, 100, 500",
        ),
        ("[redis]\nprefix = '{x}'", r"line 2: prefix in \[redis\]: "),
        ("redis = 7", "line 1: redis: "),
        ("port", "config.toml is not valid TOML"),
        (
            "[[keys]]\nname = 'a.b'\nsecret = 'c'\ncapability = { '*' = ['subscibe'] }",
            "line 4: capability.* in .*there is no operation 'subscibe'; did you mean 'subscribe'",
        ),
        (
            "[[trusted_proxies]]\naddresses = ['::1']\nheader = 'x'\n[trusted_proxies.capability]\na = ['pubish']",
            "there is no operation 'pubish'; did you mean 'publish'",
        ),
    ],
)
def test_a_wrong_file_is_refused_with_file_line_and_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message) as refused:
        load_settings(_file(tmp_path, text))
    assert str(refused.value).startswith(str(tmp_path / "config.toml"))


def test_a_wrong_value_from_elsewhere_names_the_flag_or_the_variable(
    full: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidArgument, match=r"^--port: "):
        load_settings(full, port=70_000)
    monkeypatch.setenv(f"{ENV_PREFIX}CONCURRENCY", "many")
    monkeypatch.setenv(f"{ENV_PREFIX}NAMESPACES", '[{"id": "a:b"}]')
    with pytest.raises(InvalidArgument) as refused:
        load_settings(full)
    first, second = str(refused.value).split("; ")
    assert first.startswith("SELFHOST_TRANSPORT_CONCURRENCY: ")
    assert second.startswith("SELFHOST_TRANSPORT_NAMESPACES: ")


def test_a_missing_file_and_an_unknown_option_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="does not exist"):
        load_settings(tmp_path / "absent.toml")
    with pytest.raises(InvalidArgument, match="no option 'prot'"):
        load_settings(prot=1)


def test_secrets_are_not_shown(full: Path, tmp_path: Path) -> None:
    settings = load_settings(full)
    for shown in (repr(settings), str(settings), repr(settings.redis), f"{settings.keys}"):
        assert "hunter2" not in shown and "s3cret" not in shown
    assert settings.redis.url == "redis://user:hunter2@db:6379/3"
    with pytest.raises(InvalidArgument) as refused:
        load_settings(_file(tmp_path, "[[keys]]\nname = 's3cret:s3cret'\nsecret = ['s3cret']"))
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:pw@h:1/0", "redis://:***@h:1/0"),
        ("rediss://u:p:w@h", "rediss://u:***@h"),
        ("redis://u:p@ss@h/0", "redis://u:***@h/0"),
        ("unix:///run/redis.sock?password=pw&db=1", "unix:///run/redis.sock?password=***&db=1"),
        ("redis://h:1/0", "redis://h:1/0"),
        (
            "redis+sentinel://u:pw@h:1,i:2/s?sentinel_password=pw",
            "redis+sentinel://u:***@h:1,i:2/s?sentinel_password=***",
        ),
        # Characters that should have been escaped.
        ("redis://u:ab?secret@127.0.0.1:6379/0", "redis://u:***@127.0.0.1:6379/0"),
        ("redis://u:ab#secret@h:1", "redis://u:***@h:1"),
        ("redis://u:ab/secret@h:1", "redis://u:***@h:1"),
        ("redis://u:12?secret@h:1", "redis://u:***@h:1"),
        ("redis://u:ab?password=secret@h:1", "redis://u:***@***"),
        ("redis://u:secret", "redis://u:***@***"),
        ("redis://u:a%3Fb%40c@h:1", "redis://u:***@h:1"),
        ("redis://:a@b?c#d/e@h:1/0?ssl_password=x&db=1", "redis://:***@h:1/0?ssl_password=***&db=1"),
        ("redis://h:1/0?username=u&password=se@cr%20et&db=2", "redis://h:1/0?username=u&password=***&db=2"),
        ("rediss://h/0?ssl_password=pw", "rediss://h/0?ssl_password=***"),
        ("redis://[::1]:6379/0", "redis://[::1]:6379/0"),
        ("redis://[::1]/0", "redis://[::1]/0"),
        ("redis://user@h", "redis://user@h"),
        ("u:pw@h", "***"),
    ],
)
def test_passwords_in_addresses_are_hidden(url: str, shown: str) -> None:
    assert redact_url(url) == shown


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        (0, 0),
        (90, 90),
        ("250ms", 0.25),
        ("45s", 45),
        ("30 m", 1800),
        ("12h", 43_200),
        ("1w", 604_800),
    ],
)
def test_durations(value: object, seconds: float) -> None:
    assert parse_duration(value) == timedelta(seconds=seconds)


@pytest.mark.parametrize("value", ["", "-1s", "1.5h", "soon", True, None, timedelta(seconds=-1)])
def test_wrong_durations(value: object) -> None:
    with pytest.raises(ValueError, match="whole number with a unit"):
        parse_duration(value)


def test_aut_12_the_development_key_needs_the_dev_flag_and_no_other_key(full: Path) -> None:
    assert load_settings().accepted_keys == ()
    (key,) = load_settings(dev=True).accepted_keys
    assert f"{key.name}:{key.secret.get_secret_value()}" == "dev.local:development-secret"
    assert [key.name for key in load_settings(full, dev=True).accepted_keys] == ["app.key"]


def test_dev_binds_every_namespace_unless_the_file_binds_some(full: Path) -> None:
    settings = load_settings().for_dev()
    assert settings.gateway.dev and settings.namespace_for("anything").agent == "assistant"
    assert load_settings(full).for_dev().namespaces == load_settings(full).namespaces


def test_dev_starts_its_own_redis_only_when_no_address_is_given(full: Path) -> None:
    assert not load_settings(redis_prefix="x").redis.url_given
    assert load_settings(redis="redis://127.0.0.1:6379/0").redis.url_given
    assert load_settings(full).redis.url_given


def test_settings_travel_to_other_processes(full: Path) -> None:
    settings = load_settings(full)
    assert type(settings) is Settings and pickle.loads(pickle.dumps(settings)) == settings
