"""The rights of each key, issuer and proxy on a channel (RUL-3)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from selfhost_transport.settings import Settings
from selfhost_transport.wire.capability import Capability, Operation


@dataclass(frozen=True, slots=True)
class ChannelRights:
    """What holders of a kind of credential may do on a channel; `operations` is sorted, `*` is everything."""

    credential: str
    operations: tuple[str, ...]

    def __str__(self) -> str:
        if Operation.ALL in self.operations:
            return f"{self.credential}: everything"
        return f"{self.credential}: {', '.join(self.operations) or 'nothing'}"


def channel_rights(settings: Settings, channel: str) -> list[ChannelRights]:
    """The most that each key, identity provider and proxy permits on a channel; tokens can only narrow it."""
    return [
        ChannelRights(name, tuple(sorted(Capability.parse(dict(rights), strict=False).operations(channel))))
        for name, rights in _credentials(settings)
    ]


def _credentials(settings: Settings) -> Iterator[tuple[str, Mapping[str, Sequence[str]]]]:
    for key in settings.accepted_keys:
        yield f"key {key.name}", key.capability
    for issuer in settings.issuers:
        yield f"issuer {issuer.issuer}", issuer.capability
    for proxy in settings.trusted_proxies:
        yield f"proxies {', '.join(proxy.addresses)} ({proxy.header})", proxy.capability
