"""Every option of the product, in one frozen tree, from flags, environment, a TOML file and defaults.

The sections are those of the file (docs/configuration.md). Each single value also has one flat *option name*,
unique in the tree: the keyword of `load_settings`, and, in capitals after `SELFHOST_TRANSPORT_`, the
environment variable.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from selfhost_transport.errors import InvalidArgument
from selfhost_transport.logs import Format, Level
from selfhost_transport.settings_errors import explain
from selfhost_transport.settings_values import (
    CrashRule,
    Operations,
    Policy,
    parse_duration,
    redact_url,
    require_network,
    require_origin,
    require_push_service,
    require_rollup_window,
    require_vapid_key,
    unique,
)
from selfhost_transport.turns.withholding import Traffic
from selfhost_transport.wire.vapid import public_key_of

ENV_PREFIX = "SELFHOST_TRANSPORT_"

# The well-known key of the `dev` command: every right, accepted from loopback only.
DEV_KEY_NAME = "dev.local"
DEV_KEY_SECRET = "development-secret"
DEV_AGENT = "assistant"

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

Rights = dict[str, Operations]
Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
RollupWindow = Annotated[int, AfterValidator(require_rollup_window)]
PositiveInt = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]


class _Section(BaseModel):
    """A table of the file: unknown keys are errors, values never change, errors never quote a value."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        validate_default=True,
        use_attribute_docstrings=True,
    )


class RedisSettings(_Section):
    """Where the sessions live."""

    url: str = "redis://127.0.0.1:6379/0"
    """Address of Redis: `redis://`, `rediss://` (TLS) or `unix://`; or of several servers: `redis+sentinel://`, `redis+cluster://`."""
    prefix: str = Field(default="sht", pattern=r"^[^{}\s]{1,64}$")
    """First part of every key and channel."""
    buckets: int | None = Field(default=None, ge=1, le=16384)
    """Hash tags that sessions are spread over. Absent: as the deployment began; a new one has 16, on a Cluster 1024."""

    durability: str = Field(default="everysec", pattern=r"^(none|everysec|wait:[1-9])$")
    """What an acknowledgement means: `everysec` (a crash may lose a second), `wait:N` (N replicas have it), `none` (no file)."""

    @property
    def replicas(self) -> int:
        """How many replicas have to have a write before it is acknowledged."""
        return int(self.durability.removeprefix("wait:")) if self.durability.startswith("wait:") else 0

    @property
    def url_given(self) -> bool:
        """Whether the address is configured; `dev` starts its own Redis if not."""
        return "url" in self.model_fields_set

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, redact_url(value) if name == "url" else value


class KeyRule(_Section):
    """One Ably API key, `name:secret` on the wire."""

    name: str = Field(pattern=r"^[^.:\s]+\.[^.:\s]+$")
    """`appId.keyId`."""
    secret: SecretStr = Field(min_length=1)
    """The part after the colon; never shown."""
    capability: Rights = {"*": ("*",)}
    """Channel pattern to the operations allowed on it."""
    revocable_tokens: bool = False
    """Whether tokens made from this key can be revoked; they then live at most an hour."""


class IssuerRule(_Section):
    """An identity provider whose JWTs are accepted. Exactly one of the three sources of keys is given."""

    issuer: str = Field(min_length=1)
    """The claim `iss` of its tokens."""
    jwks_url: str | None = Field(default=None, pattern=r"^https?://")
    """Where its public keys are fetched from (JWKS)."""
    jwks_file: Path | None = None
    """A file with the same content, for places without outbound network."""
    public_key: str | None = Field(default=None, min_length=1)
    """One public key, as PEM text."""
    audience: str | None = Field(default=None, min_length=1)
    """Value that the claim `aud` must contain; absent: not checked."""
    algorithms: tuple[Literal["RS256", "ES256"], ...] = Field(default=("RS256", "ES256"), min_length=1)
    """Signatures that are accepted: `RS256`, `ES256`."""
    client_id_claim: str = Field(default="sub", min_length=1)
    """The claim that becomes the client id."""
    capability_claim: str | None = Field(default=None, min_length=1)
    """Claim that narrows the rights: a map, or its JSON text; absent: all tokens have those of `capability`."""
    capability: Rights = {"*": ("subscribe", "publish", "history", "presence")}
    """The most that its tokens can permit: channel pattern to operations."""

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        if sum(source is not None for source in (self.jwks_url, self.jwks_file, self.public_key)) != 1:
            raise ValueError("give exactly one of jwks_url, jwks_file, public_key")
        return self


class ProxyRule(_Section):
    """Proxies that have verified who connects, and tell it in a header."""

    addresses: tuple[Annotated[str, AfterValidator(require_network)], ...] = Field(min_length=1)
    """Addresses or networks (`10.0.0.0/8`) of the proxies; the header is ignored from any other address."""
    header: str = Field(pattern=r"^[A-Za-z0-9-]+$")
    """The header that holds the client id, for example `X-Forwarded-User`; the proxy has to drop a client's own."""
    capability: Rights = {"*": ("subscribe", "publish", "history", "presence")}
    """The rights of these clients: channel pattern to operations."""


class NamespaceRule(_Section):
    """What holds for the sessions of one namespace; id `*` is the rule for all others."""

    id: str = Field(pattern=r"^[^:]+$")
    """The part of a channel name up to its first colon, or `*`."""
    agent: str | None = Field(default=None, min_length=1)
    """Agent that works on published inputs; absent: plain pub/sub."""
    policy: Policy = Policy.CONCURRENT
    """What a send does while a turn is active: `concurrent`, `queue`, `interrupt`, `reject` or `merge`."""
    retention: Duration = timedelta(0)
    """How long a message is kept after it was sent; a turn is removed as a whole, this long after its end. 0 = no limit."""
    max_active: Count = 0
    """Turns that may be active at once in a session; 0 = no limit."""
    queue_cap: Count = 100
    """Turns that may wait in a session; a further send is refused. 0 = none may wait."""
    on_crash: CrashRule = CrashRule.RESTART
    """What the next attempt does after a lost worker: `restart`, `continue` or `fail`."""
    max_attempts: PositiveInt | None = None
    """Attempts per turn; absent: that of `[worker]`."""
    deadline: Duration = timedelta(0)
    """Longest time a turn may be active; 0 = no limit."""
    abandon_after: Duration = timedelta(0)
    """Cancel active turns of a session that has had no reader for this long; 0 = never."""
    withhold: tuple[Traffic, ...] = ()
    """Traffic kept from clients without the right to it: `reasoning` (`reasoning-subscribe`), `tools` (`tools-subscribe`)."""


# The rule of a namespace without configuration: plain pub/sub, no retention limit.
_PLAIN = NamespaceRule(id="*")


class GatewaySettings(_Section):
    """The process that clients connect to."""

    host: str = Field(default="127.0.0.1", min_length=1)
    """Address to listen on."""
    port: int = Field(default=8080, ge=0, le=65535)
    """TCP port; 0 = any free one, printed once ready."""
    processes: PositiveInt = 1
    """Processes that share the port."""
    tls_cert: Path | None = None
    """Certificate (PEM, with those above it); the port then speaks TLS. Absent: plain HTTP. Read again when it changes."""
    tls_key: Path | None = None
    """Its private key (PEM, without a password); absent: it stands in the certificate's file."""
    max_idle_ms: Count = 15_000
    """Longest silence on a connection before a heartbeat, ms; 0 = no heartbeats."""
    connection_state_ttl_ms: PositiveInt = 960_000
    """How long clients try to resume a dropped connection, ms; long enough for a laptop that sleeps."""
    max_message_size: PositiveInt = 65_536
    """Largest publish of a client, bytes; workers are not bound by it."""
    max_frame_size: PositiveInt = 524_288
    """Largest websocket frame and body of a request that is accepted, bytes."""
    max_chat_size: PositiveInt = 4_194_304
    """Largest request of a `useChat` page or an AG-UI client, which sends all messages that it shows, bytes."""
    resume_window_s: PositiveInt = 960
    """How far back the live log reaches for a reader that resumes, s; each append takes about 65 bytes of Redis for that time."""
    remain_present_for_ms: int = Field(default=15_000, ge=1_000)
    """How long presence members outlive a lost connection that did not say how long, ms."""
    presence_lease_ms: int = Field(default=5_000, ge=100)
    """How long a gateway that falls silent keeps its presence members, before that time begins, ms."""
    request_timeout_ms: PositiveInt = 10_000
    """How long the first line and headers of a request may take, ms; then the connection is closed."""
    outgoing_buffer_bytes: PositiveInt = 1_048_576
    """Unsent bytes of a connection before its reader counts as slow."""
    drain_ms: Count = 5_000
    """Time over which a stopping gateway sends its connections away, ms; 0 = all at once."""
    dev: bool = False
    """Accept the development key, from loopback only, when no key is configured."""
    dev_agent: str = DEV_AGENT
    """Agent of every session in development, where no namespace is configured."""
    console: bool = False
    """Serve the operators' console at `/console`; it asks for a key with the right `console` on all sessions."""
    allowed_origins: tuple[Annotated[str, AfterValidator(require_origin)], ...] = ()
    """Origins (`https://chat.example.com`) of pages whose cookies and proxies count, a list; the gateway's own is one always."""
    allowed_hosts: tuple[Annotated[str, Field(pattern=r"^[^\s/]+$")], ...] = ()
    """Host names answered to besides this machine's, a list; empty = any, unless the development key is accepted."""

    @model_validator(mode="after")
    def _key_has_a_certificate(self) -> Self:
        if self.tls_key is not None and self.tls_cert is None:
            raise ValueError("tls_key is given without tls_cert")
        return self


class LimitSettings(_Section):
    """Limits beyond which requests are refused, so that the rest runs in time; cancels are exempt. 0 = no limit.

    Rates and connections are counted by each gateway process, turns in Redis.
    """

    connection_publishes_per_s: Count = 0
    """Publishes of one connection per second; beyond: 42911."""
    client_publishes_per_s: Count = 0
    """Publishes of one client id, on all its connections, per second; beyond: 42910."""
    session_publishes_per_s: Count = 0
    """Publishes into one session by all clients, per second; beyond: 42913."""
    application_publishes_per_s: Count = 0
    """Publishes of one application (tenant: the part of a key before the dot, or an issuer) per second; beyond: 42910."""
    connections_per_client: Count = 0
    """Open connections of one client id, and as many event streams over HTTP; a further one is refused with 42920."""
    new_sessions_per_s: Count = 100
    """New sessions that one client id (or all clients without one) may attach per second; 5 seconds' worth at once."""
    unfinished_per_address: Count = 4096
    """Connections of one address that have not sent a whole request yet, per process; a further one is closed."""
    max_open_turns: Count = 1_000
    """Turns of one session that have not ended; a further send is refused with 42910."""
    max_waiting: Count = 2_000
    """Turns of one agent that wait for a worker, in each bucket; a further send is refused with 50005."""
    max_wait_ms: Count = 1_000
    """Longest wait for a worker, at the pace at which they take turns, ms; a send that would wait longer: 50005."""
    burst_wait_ms: Count = 3_000
    """The same for the first five seconds of an overload, so that many sends at once wait instead of being refused."""
    max_lag_ms: Count = 500
    """How late a gateway's event loop may be on average, ms; when it is later for two seconds, sends are refused with 50005."""


class WorkerSettings(_Section):
    """The process that runs agents."""

    concurrency: PositiveInt = 200
    """Turns one worker runs at once."""
    lease_ms: int = Field(default=10_000, ge=100)
    """How long a worker that falls silent keeps its turns, ms."""
    max_attempts: PositiveInt = 3
    """Attempts before a turn ends with `error`."""
    grace_ms: Count = 1_000
    """Time that a cancel hook, and a turn of a stopping worker, are given, ms."""
    rollup_window_ms: RollupWindow = 40
    """How long tokens are gathered into one append, ms: 0, 20, 40, 100 or 500."""
    metrics_port: int | None = Field(default=None, ge=0, le=65535)
    """TCP port of the metrics; 0 = any free one, printed; absent: none."""
    metrics_host: str = Field(default="127.0.0.1", min_length=1)
    """Address that the metrics are served on."""
    free_models: bool = False
    """The agents' models cost nothing, as a fake provider or a server of your own: load tests need no `--yes`."""
    retry_errors: bool = False
    """Try a turn again whose agent failed, up to `max_attempts`; a lost worker is always followed by another."""


class LogSettings(_Section):
    """What the processes write to standard error."""

    format: Format = "text"
    """`text` for people, or `json`: one object per line."""
    level: Level = "warning"
    """Least important lines that are written: `debug`, `info` (every turn), `warning` or `error`."""


class WebhookRule(_Section):
    """An address that is sent what happens to turns, signed."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,40}$")
    """Names its queue in Redis: keep it when the address changes."""
    url: str = Field(pattern=r"^https?://")
    """Where events are posted."""
    secret: SecretStr = Field(min_length=16)
    """Signs them: `whsec_` and base64."""
    events: tuple[Literal["turn.ended", "turn.suspended", "turn.escalated", "turn.dead_letter"], ...] = (
        "turn.ended",
        "turn.suspended",
        "turn.escalated",
        "turn.dead_letter",
    )
    """What is sent."""
    max_attempts: PositiveInt = 12
    """Deliveries before an event is given up; pauses between them double, up to 30 s."""
    timeout_ms: PositiveInt = 10_000
    """How long the address may take to answer, ms."""


class PushSettings(_Section):
    """Web push: notifications of answers whose readers have left; needs the extra `push`."""

    private_key: Annotated[SecretStr, AfterValidator(require_vapid_key)] | None = None
    """VAPID key, as `selfhost-transport push keys` makes it; absent: no pushes. Another key ends all subscriptions."""
    subject: str = Field(default="", pattern=r"^(mailto:\S+@\S+|https://\S+)?$")
    """Where push services reach the operator: `mailto:ops@example.com` or an address of yours."""
    services: tuple[Annotated[str, AfterValidator(require_push_service)], ...] = (
        "https://fcm.googleapis.com",
        "https://updates.push.services.mozilla.com",
        "https://*.notify.windows.com",
        "https://*.push.apple.com",
    )
    """Push services of browsers, a list: endpoints anywhere else are refused. `*.` stands for any first part of a host."""
    keep: Duration = timedelta(days=60)
    """How long a browser that does not open the page keeps its subscription."""
    ttl: Duration = timedelta(days=1)
    """How long a push is tried, and kept by the push service while the device is off."""
    wait_ms: Count = 2_000
    """Time after the end of a turn at which its sender must have left to be sent a push, ms."""
    max_attempts: PositiveInt = 8
    """Attempts before a push is given up; pauses between them double, from 5 s to 10 min."""
    timeout_ms: PositiveInt = 10_000
    """How long a push service may take to answer, ms."""

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if self.private_key is not None and not self.subject:
            raise ValueError("push services want a `subject`: mailto:ops@example.com, or an https address")
        if self.keep < timedelta(minutes=1) or self.ttl < timedelta(seconds=1):
            raise ValueError("`keep` is a minute or more, `ttl` a second or more")
        return self

    @property
    def public_key(self) -> str | None:
        """What browsers subscribe with; None without pushes."""
        return None if self.private_key is None else public_key_of(self.private_key.get_secret_value())


class TracingSettings(_Section):
    """Traces of turns, sent to an OpenTelemetry collector (OTLP); needs the extra `otel`, or `otel-grpc`."""

    endpoint: str | None = Field(default=None, pattern=r"^https?://")
    """Address of the collector, for example `http://127.0.0.1:4318`; absent: no traces."""
    protocol: Literal["http", "grpc"] = "http"
    """`http`: protobufs over HTTP; `grpc`: at the collector's port for it, 4317 as a rule."""
    ratio: float = Field(default=1.0, ge=0, le=1)
    """Fraction of the turns that are traced, unless the sender's own trace decides."""


class Settings(BaseSettings):
    """The whole configuration. `load_settings` is the usual way to make one."""

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        validate_default=True,
        use_attribute_docstrings=True,
    )

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
        fallback = _PLAIN
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


def load_settings(config: Path | None = None, **overrides: object) -> Settings:
    """Read the file, the environment, and `overrides` by option name (`redis=…`, `port=…`; None: not given).

    Raises InvalidArgument, naming the key, for a file that cannot be read or a value or key that is wrong.
    """
    given: dict[str, Any] = {} if config is None else {"config": config}
    for name, value in overrides.items():
        if name not in options():
            raise InvalidArgument(f"there is no option {name!r}; see docs/configuration.md")
        if value is not None:
            given = _merge(given, options()[name].place(value))
    file = config or _config_in_environment()
    try:
        return Settings(**given)
    except ValidationError as error:
        raise InvalidArgument(explain(error, Settings, file, _sources(overrides))) from None
    except tomllib.TOMLDecodeError as error:
        raise InvalidArgument(f"{file} is not valid TOML: {error}") from None
    except UnicodeDecodeError:
        raise InvalidArgument(f"{file} is not valid TOML: it is not UTF-8") from None
    except OSError as error:
        raise InvalidArgument(f"the configuration file {file} cannot be read: {error.strerror}") from None


def _config_in_environment() -> Path | None:
    name = os.environ.get(options()["config"].variable)
    return Path(name) if name else None


def _sources(overrides: Mapping[str, object]) -> dict[tuple[str, ...], str]:
    """Where values come from that are not the file's: a flag of the command line, or a variable."""
    found = {}
    for option in options().values():
        if overrides.get(option.name) is not None:
            found[option.path] = f"--{option.name.replace('_', '-')}"
        elif os.environ.get(option.variable):
            found[option.path] = option.variable
    return found


class _OptionEnvironment(PydanticBaseSettingsSource):
    """`SELFHOST_TRANSPORT_<OPTION>`: flat names, unlike the nested ones that pydantic-settings would make."""

    def __call__(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for option in options().values():
            # An empty variable means "not given": that is how compose files pass on unset variables.
            if text := os.environ.get(option.variable):
                found = _merge(found, option.place(_from_environment(option, text)))
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
        if isinstance(kind, type) and issubclass(kind, _Section):
            yield from _walk(kind, here)
        else:
            usual = f"{path[0]}_{name}" if path and path[0] in _PREFIXED else name
            yield Option(here, _OPTION_NAMES.get(here, usual), field.default, field.description or "")


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both_tables = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both_tables else value
    return merged
