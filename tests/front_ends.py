"""The configuration of gateways in tests of the HTTP front ends: keys by their rights, namespaces by their agents."""

from __future__ import annotations

import json


def key(name: str, *rights: str, channels: str = "*") -> str:
    """A key with the secret `secret`; without `rights` it has all."""
    capability = json.dumps(list(rights or ("*",)))
    return f'[[keys]]\nname = "{name}"\nsecret = "secret"\ncapability = {{ "{channels}" = {capability} }}\n'


def namespace(name: str, agent: str, **settings: str) -> str:
    """A namespace bound to an agent."""
    more = "".join(f'{setting} = "{value}"\n' for setting, value in settings.items())
    return f'[[namespaces]]\nid = "{name}"\nagent = "{agent}"\n{more}'


# One key with every right, and those that lack some.
PEOPLE = "\n".join(
    [
        key("app.key"),
        key("app.reader", "subscribe", "history"),
        key("app.listener", "subscribe"),
        key("app.writer", "publish", "turn-start"),
        key("app.talker", "subscribe", "history", "publish", "turn-start"),
        key("app.other", channels="elsewhere"),
    ]
)
