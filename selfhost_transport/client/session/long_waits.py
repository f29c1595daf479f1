"""Says why a call takes long: once, after some seconds, as a warning in the log and as an event."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from selfhost_transport.client.emitter import Emitter
from selfhost_transport.client.session.events import Waiting

_log = logging.getLogger(__name__)

REPORT_AFTER_S: Final = 5.0


class LongWaits:
    """Watches the waits of one session."""

    def __init__(self, session: str, report_failure: Callable[[Exception], None]) -> None:
        self._session = session
        self.changes: Emitter[Waiting] = Emitter(report_failure)

    @contextmanager
    def reporting(self, what: str, why: Callable[[], str]) -> Iterator[None]:
        """Report why the block has not come to its end, if it takes long."""
        timer = self.report_later(what, why)
        try:
            yield
        finally:
            timer.cancel()

    def report_later(
        self, what: str, why: Callable[[], str | None], turn_id: str | None = None
    ) -> asyncio.TimerHandle:
        """The same for what is not a block; `why` answers None when nothing is waited for any more."""
        return asyncio.get_running_loop().call_later(REPORT_AFTER_S, self._notify, what, why, turn_id)

    def _notify(self, what: str, why: Callable[[], str | None], turn_id: str | None) -> None:
        reason = why()
        if reason is None:
            return
        _log.warning(
            "session.waiting session=%s for=%r seconds=%.0f reason=%s",
            self._session,
            what,
            REPORT_AFTER_S,
            reason,
        )
        self.changes.emit(Waiting(what, reason, REPORT_AFTER_S, turn_id))
