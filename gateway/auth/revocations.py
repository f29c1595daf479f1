"""Which tokens are revoked, as this gateway knows it: loaded at start, on notification, and after every reconnect."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable

from gateway.auth.authenticator import Credential, now_ms
from gateway.background import Background
from selfhost_transport.errors import TokenError, TransportError
from selfhost_transport.redis_io.subscriber import Subscriber
from selfhost_transport.store.revocations import Revocation, RevocationStore, TargetKind
from selfhost_transport.wire.codes import Code

logger = logging.getLogger(__name__)

_Target = tuple[str, TargetKind, str]


class Revocations:
    """Answers from memory. `on_change` is called after every change."""

    def __init__(self, store: RevocationStore, redis_url: str) -> None:
        self._store = store
        self._subscriber = Subscriber(redis_url, on_reconnect=self.reload)
        self._background = Background("revocations")
        self._by_target: dict[_Target, list[Revocation]] = {}
        self._known: set[Revocation] = set()
        self._loading: asyncio.Task[None] | None = None
        self._again = False
        self.on_change: Callable[[], None] = _ignore

    async def start(self) -> None:
        """Subscribe, then load. Raises StoreUnavailable."""
        await self._subscriber.subscribe(self._store.channel, lambda payload: self.reload())
        self._take(await self._store.all())

    async def close(self) -> None:
        """Stop listening."""
        await self._background.close()
        await self._subscriber.close()

    async def add(self, revocations: list[Revocation]) -> None:
        """Revoke tokens on every gateway. Raises StoreUnavailable."""
        await self._store.add(revocations)

    def applies_at(self, credential: Credential) -> int | None:
        """From when a caller's token is refused, ms since the epoch; None: it is good."""
        claims = credential.claims
        if claims is None or not self._by_target:
            return None
        times = [
            revocation.applies_at
            for target in _targets(credential)
            for revocation in self._by_target.get(target, ())
            if claims.issued_ms < revocation.issued_before
        ]
        return min(times, default=None)

    def check(self, credential: Credential) -> None:
        """Raise TokenError 40141 for a token that is refused by now."""
        applies_at = self.applies_at(credential)
        if applies_at is not None and applies_at <= now_ms():
            raise TokenError("the token was revoked; obtain a new one", code=Code.TOKEN_REVOKED)

    async def _compare(self) -> None:
        """A Redis that lost its data must not make refused tokens good again."""
        found = set(await self._store.all())
        lost = {one for one in self._known - found if one.useful_until > now_ms()}
        if lost:
            logger.warning("revocations.restored revocations=%d", len(lost))
            await self._store.add(list(lost))
        self._take(found | lost)

    def _take(self, revocations: Iterable[Revocation]) -> None:
        self._known = set(revocations)
        by_target: defaultdict[_Target, list[Revocation]] = defaultdict(list)
        for revocation in self._known:
            by_target[revocation.key_name, revocation.kind, revocation.value].append(revocation)
        self._by_target = dict(by_target)
        self.on_change()

    def reload(self) -> None:
        """Read again what the store has, soon; what it has lost is put back."""
        self._again = True
        if self._loading is None or self._loading.done():
            self._loading = self._background.start(self._load())

    async def _load(self) -> None:
        delay = 0.05
        while self._again:
            self._again = False
            try:
                await self._compare()
            except TransportError as error:
                logger.warning("revocations.load_failed error=%s", error)
                self._again = True
                await asyncio.sleep(delay)  # paces asking while Redis is away
                delay = min(delay * 2, 2.0)


def _targets(credential: Credential) -> list[_Target]:
    """Everything that revocations could choose a token by."""
    claims = credential.claims
    if claims is None:
        return []
    name = credential.key_name
    found: list[_Target] = []
    if claims.client_id is not None:
        found.append((name, TargetKind.CLIENT_ID, claims.client_id))
    if claims.revocation_key is not None:
        found.append((name, TargetKind.REVOCATION_KEY, claims.revocation_key))
    if claims.capability is not None:
        # As the token names them: `channel:a:*` revokes tokens that list `a:*`, not those that list `a:b`.
        found += [(name, TargetKind.CHANNEL, str(resource)) for resource in claims.capability.rights]
    return found


def _ignore() -> None:
    """No listener is left."""
