"""Which turns an `ai-cancel` names, as a reader of the session sees it (protocol section 8.6, and our own headers)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from selfhost_transport.turns import headers as h
from selfhost_transport.turns.headers import Headers
from selfhost_transport.turns.runs import RunState


@dataclass(frozen=True, slots=True)
class Cancel:
    """One cancel. Without a run id, an input id and an owner it names every turn that was open."""

    serial: str
    run_id: str | None
    trigger: str | None
    owner: str | None

    @classmethod
    def read(cls, serial: str, headers: Headers, client_id: str | None) -> Self:
        """From the headers of the message and its verified publisher."""
        owner = headers.get(h.CANCEL_CLIENT_ID)
        if owner is None and headers.get(h.CANCEL_OWN) == "true":
            owner = client_id or ""
        if headers.get(h.CANCEL_CONNECTION) == "true":
            # Which turns a connection sent is not in the session; their ends will be.
            return cls(serial, "", None, owner)
        return cls(serial, headers.run_id, headers.input_codec_message_id, owner)

    def names(self, run: RunState, first_serial: str | None) -> bool:
        """Whether it names a run whose first message has this serial."""
        if self.run_id is not None:
            return run.run_id == self.run_id
        if self.trigger is not None:
            return run.input_codec_message_id == self.trigger
        # A cancel of several turns is about those that there were.
        was_there = first_serial is not None and first_serial < self.serial
        return was_there and self.owner in (None, run.owner)
