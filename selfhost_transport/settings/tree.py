"""The whole configuration as one frozen tree, and each of its values as an option with a flat name."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Self, cast
from urllib.parse import urlsplit

from pydantic import BaseModel, SecretStr, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from selfhost_transport.errors import InvalidArgument
from selfhost_transport.settings.callers import DEV_KEY_NAME, DEV_KEY_SECRET, IssuerRule, KeyRule, ProxyRule
from selfhost_transport.settings.gateway import GatewaySettings, LimitSettings
from selfhost_transport.settings.namespaces import PLAIN, NamespaceRule
from selfhost_transport.settings.notifications import PushSettings, WebhookRule
from selfhost_transport.settings.observing import LogSettings, TracingSettings
from selfhost_transport.settings.redis import RedisSettings
from selfhost_transport.settings.section import STRICT, Section
from selfhost_transport.settings.worker import WorkerSettings
from selfhost_transport.settings_values import unique

ENV_PREFIX = "SELFHOST_TRANSPORT_"

# Option names that differ from the last part of the path, because the command line calls them so.
_OPTION_NAMES: dict[tuple[str, ...], str] = {
    ("redis", "url"): "redis",
    ("redis", "prefix"): "redis_prefix",
    ("tracing", "endpoint"): "tracing_endpoint",
    ("tracing", "ratio"): "tracing_ratio",
    ("tracing", "protocol"): "tracing_protocol",
    ("log", "format"): "log_format",
    ("log", "level"): "log_level",
}

_PREFIXED = frozenset({"push"})
"""Sections whose values have the section's name in front."""


class Settings(BaseSettings):
    """The whole configuration. `load_settings` is the usual way to make one."""

    model_config = cast("SettingsConfigDict", STRICT)

    config: Path | None = None
    """The TOML file that values come from."""
    data_dir: Path = Path(".selfhost-transport")
    """Where `dev` keeps the data of its Redis."""
    redis: RedisSettings = RedisSettings()
    gateway: GatewaySettings = GatewaySettings()
    limits: LimitSettings = LimitSettings()
    worker: WorkerSettings = WorkerSettings()
    log: LogSettings = LogSettings()
    tracing: TracingSettings = TracingSettings()
    push: PushSettings = PushSettings()
    keys: tuple[KeyRule, ...] = ()
    """API keys; in the environment, a JSON list."""
    issuers: tuple[IssuerRule, ...] = ()
    """Identity providers; in the environment, a JSON list."""
    trusted_proxies: tuple[ProxyRule, ...] = ()
    """Proxies that identify clients; in the environment, a JSON list."""
    namespaces: tuple[NamespaceRule, ...] = ()
    """Rules per namespace; in the environment, a JSON list."""
    webhooks: tuple[WebhookRule, ...] = ()
    """Addresses that are sent what happens to turns; in the environment, a JSON list."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Keywords before environment before file."""
        environment = _OptionEnvironment(settings_cls)
        config = init_settings().get("config") or environment().get("config")
        if config is None:
            return init_settings, environment
        if not Path(config).is_file():
            raise InvalidArgument(f"the configuration file does not exist: {config}")
        return init_settings, environment, TomlConfigSettingsSource(settings_cls, Path(config))

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        unique("keys", [key.name for key in self.keys])
        unique("issuers", [rule.issuer for rule in self.issuers])
        unique("webhooks", [rule.name for rule in self.webhooks])
        unique("namespaces", [rule.id for rule in self.namespaces])
        return self

    @property
    def accepted_keys(self) -> tuple[KeyRule, ...]:
        """The configured keys; the development key when there is none and `gateway.dev` is set."""
        if self.keys or not self.gateway.dev:
            return self.keys
        return (KeyRule(name=DEV_KEY_NAME, secret=SecretStr(DEV_KEY_SECRET)),)

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not appear in a log: the secrets of keys and webhooks, the key of pushes, the password of Redis."""
        password = urlsplit(self.redis.url).password
        rules: tuple[KeyRule | WebhookRule, ...] = (*self.keys, *self.webhooks)
        found = [rule.secret.get_secret_value() for rule in rules]
        if self.push.private_key is not None:
            found.append(self.push.private_key.get_secret_value())
        return (*found, *((password,) if password else ()))

    @property
    def accepts_development_key(self) -> bool:
        """Whether the public development key is one of those."""
        return any(rule.name == DEV_KEY_NAME for rule in self.accepted_keys)

    def namespace_for(self, channel: str) -> NamespaceRule:
        """The rule of a channel: its exact namespace, else `*`, else plain pub/sub without a retention limit."""
        namespace = channel.partition(":")[0]
        fallback = PLAIN
        for rule in self.namespaces:
            if rule.id == namespace:
                return rule
            if rule.id == "*":
                fallback = rule
        return fallback

    def for_dev(self) -> Settings:
        """What the `dev` command adds: the dev flag, and every namespace bound when the file binds none."""
        gateway = self.gateway.model_copy(update={"dev": True})
        namespaces = self.namespaces or (NamespaceRule(id="*", agent=gateway.dev_agent),)
        return self.model_copy(update={"gateway": gateway, "namespaces": namespaces})


class Option(NamedTuple):
    """One value that can be set: its path in the file and its flat name."""

    path: tuple[str, ...]
    name: str
    default: object
    description: str

    @property
    def variable(self) -> str:
        """The environment variable."""
        return ENV_PREFIX + self.name.upper()

    def place(self, value: object) -> dict[str, Any]:
        """The value at its path: `{"gateway": {"port": value}}`."""
        tree: Any = value
        for part in reversed(self.path):
            tree = {part: tree}
        return dict(tree)


@cache
def options() -> Mapping[str, Option]:
    """Every option by its flat name, in the order of the tree."""
    found = {option.name: option for option in _walk(Settings, ())}
    assert len(found) == len(list(_walk(Settings, ()))), "two options share a name"
    return found


class _OptionEnvironment(PydanticBaseSettingsSource):
    """`SELFHOST_TRANSPORT_<OPTION>`: flat names, unlike the nested ones that pydantic-settings would make."""

    def __call__(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for option in options().values():
            # An empty variable means "not given": that is how compose files pass on unset variables.
            if text := os.environ.get(option.variable):
                found = merged(found, option.place(_from_environment(option, text)))
        return found

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Required by the base class; `__call__` reads all fields at once."""
        return self().get(field_name), field_name, False


def _from_environment(option: Option, text: str) -> object:
    if not isinstance(option.default, tuple):
        return text
    try:
        return json.loads(text)
    except ValueError:
        raise InvalidArgument(f"{option.variable} must be a JSON list") from None


def _walk(model: type[BaseModel], path: tuple[str, ...]) -> Iterator[Option]:
    for name, field in model.model_fields.items():
        here = (*path, name)
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            yield from _walk(kind, here)
        else:
            usual = f"{path[0]}_{name}" if path and path[0] in _PREFIXED else name
            yield Option(here, _OPTION_NAMES.get(here, usual), field.default, field.description or "")


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Two trees of values as one; those of `over` count where both have one."""
    found = dict(base)
    for key, value in over.items():
        both_tables = isinstance(value, Mapping) and isinstance(found.get(key), Mapping)
        found[key] = merged(found[key], value) if both_tables else value
    return found
