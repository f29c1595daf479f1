"""Writes docs/configuration.md from the settings themselves, so that the page cannot fall behind them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from inspect import cleandoc
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from selfhost_transport.settings import (
    ENV_PREFIX,
    GatewaySettings,
    IssuerRule,
    KeyRule,
    LimitSettings,
    LogSettings,
    NamespaceRule,
    Option,
    ProxyRule,
    PushSettings,
    RedisSettings,
    Settings,
    TracingSettings,
    WebhookRule,
    WorkerSettings,
    options,
)

PAGE = Path(__file__).parent.parent / "docs" / "configuration.md"

_INTRODUCTION = f"""\
# Configuration

<!-- Written by scripts/write_configuration.py from selfhost_transport/settings: change it there. -->

A value comes from the first of these that has it: the command-line flag, the environment variable
`{ENV_PREFIX}<OPTION>`, the TOML file, the default. The file is given by `--config FILE` or
`{ENV_PREFIX}CONFIG`. An unknown key in the file is an error that names the key. An empty variable
counts as not set.

```toml
[redis]
url = "redis://127.0.0.1:6379/0"

[gateway]
port = 8080

[[keys]]
name = "app.web"
secret = "…"
capability = {{ "conversations:*" = ["subscribe", "publish", "history", "presence"] }}

[[namespaces]]
id = "conversations"
agent = "assistant"
policy = "queue"
retention = "30d"
```

Durations are a whole number with a unit, `ms`, `s`, `m`, `h`, `d` or `w`; without a unit, seconds. Sizes are bytes.
"""

_NAMESPACES = """
A rule holds for the sessions of one namespace: the part of the session's name before the first colon. The session
`conversations:42` belongs to `conversations`; `conversation:42` does not. The rule with the id `*` holds where no
other does. Without any rule a session is plain publish and subscribe, and is kept.
"""

_KEYS = """
One table per API key. Clients use `name:secret`. The `dev` command accepts the key `dev.local:development-secret`,
from loopback only, as long as the file has none: from clients and pages of this machine, not from a page of another origin.
"""


_ISSUERS = """
One table per identity provider whose tokens clients may use as they are ([authentication.md](authentication.md)).
"""

_PROXIES = """
One table per group of proxies in front of the gateway that authenticate clients themselves
([authentication.md](authentication.md)).
"""


_WEBHOOKS = """
What happens to turns, posted to an address of yours ([webhooks](webhooks.md)); needs the extra `webhooks`.

```toml
[[webhooks]]
name = "backend"
url = "https://app.example.com/hooks/turns"
secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
```
"""


def render() -> str:
    """The whole page."""
    return "\n".join([_INTRODUCTION, *_lines()]) + "\n"


def _lines() -> Iterator[str]:
    yield from _options("General", Settings, ())
    yield from _options("[redis]", RedisSettings, ("redis",))
    yield from _options("[gateway]", GatewaySettings, ("gateway",))
    yield from _options("[limits]", LimitSettings, ("limits",))
    yield from _options("[worker]", WorkerSettings, ("worker",))
    yield from _options("[log]", LogSettings, ("log",))
    yield from _options("[tracing]", TracingSettings, ("tracing",))
    yield from _options("[push]", PushSettings, ("push",))
    yield from _tables("[[keys]]", KeyRule, _KEYS, "keys")
    yield from _tables("[[issuers]]", IssuerRule, _ISSUERS, "issuers")
    yield from _tables("[[trusted_proxies]]", ProxyRule, _PROXIES, "trusted_proxies")
    yield from _tables("[[namespaces]]", NamespaceRule, _NAMESPACES, "namespaces")
    yield from _tables("[[webhooks]]", WebhookRule, _WEBHOOKS, "webhooks")


def _options(title: str, model: type[BaseModel], path: tuple[str, ...]) -> Iterator[str]:
    about = (
        "At the top of the file, before any table." if model is Settings else cleandoc(model.__doc__ or "")
    )
    yield from (f"## {_heading(title)}", "", about, "")
    yield from ("| key | variable | default | meaning |", "|---|---|---|---|")
    for option in options().values():
        is_table = len(option.path) == 1 and option.default == ()
        if option.path[:-1] == path and not is_table:
            yield f"| `{option.path[-1]}` | `{option.variable}` | {_default(option)} | {option.description} |"
    yield ""


def _tables(title: str, model: type[BaseModel], text: str, name: str) -> Iterator[str]:
    yield from (f"## {_heading(title)}", text)
    yield f"In the environment: `{options()[name].variable}`, a JSON list of objects."
    yield from ("", "| key | default | meaning |", "|---|---|---|")
    for key, field in model.model_fields.items():
        yield f"| `{key}` | {_field_default(field)} | {field.description} |"
    yield ""


def _heading(title: str) -> str:
    return f"`{title}`" if title.startswith("[") else title


def _default(option: Option) -> str:
    return "" if option.default is None else _shown(option.default)


def _field_default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    return "" if field.default is None else _shown(field.default)


def _shown(value: object) -> str:
    if isinstance(value, timedelta):
        return f"`{value.total_seconds():.0f}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`{list(value)}`"
    if isinstance(value, dict):
        entries = ", ".join(f'"{key}" = {list(names)}'.replace("'", '"') for key, names in value.items())
        return f"`{{ {entries} }}`"
    return f"`{value}`"


if __name__ == "__main__":
    PAGE.write_text(render())
