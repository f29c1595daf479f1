"""The presence members that one connection has entered. No I/O."""

from __future__ import annotations

from gateway.commands.commands import ChangePresence, LeavePresence
from selfhost_transport.store.presence import Holder
from selfhost_transport.wire.actions import PresenceAction


class Members:
    """Members entered by this socket; `inherited`: an earlier socket of the connection may have entered some too.

    Its truth value: whether there may be any.
    """

    __slots__ = ("_entered", "inherited")

    def __init__(self) -> None:
        self.inherited = False
        # (session, client id); hardly any connection has some.
        self._entered: set[tuple[str, str]] | None = None

    def __bool__(self) -> bool:
        return self.inherited or bool(self._entered)

    def note(self, operation: ChangePresence) -> None:
        """Changes are on their way to the store."""
        members = self._entered = self._entered or set()
        for change in operation.changes:
            member = (operation.session, change.client_id or "")
            if change.action is PresenceAction.LEAVE:
                members.discard(member)
            else:
                members.add(member)

    def leave(self, session: str | None, holder: Holder) -> LeavePresence | None:
        """What takes them out of a session, or of all (None); nothing where there are none."""
        members = self._entered or set()
        gone = {member for member in members if session in (None, member[0])}
        if not gone and not self.inherited:
            return None
        self._entered = members - gone
        return LeavePresence(session, holder)
