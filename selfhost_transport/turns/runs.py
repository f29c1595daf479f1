"""What a reader knows of a turn: status, steps, owner, error, from its life-cycle messages (protocol section 8).

The messages are kept and read again in serial order whenever one arrives, so the result does not depend on the
order of arrival (section 7.7, "Python implementation").
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from selfhost_transport.errors import ErrorInfo
from selfhost_transport.turns import headers as h
from selfhost_transport.turns.headers import Headers
from selfhost_transport.turns.lifecycle import RunReason
from selfhost_transport.turns.status import STATUS_OF_REASON, TurnStatus

DEFAULT_ERROR_CODE: Final = 104008
DEFAULT_ERROR_MESSAGE: Final = "agent reported an error"

_RUN_STATUS: Final = {
    TurnStatus.COMPLETED: "complete",
    TurnStatus.FAILED: "error",
    TurnStatus.CANCELLING: "active",
    TurnStatus.PENDING: "active",
}
_ACTIVE_STEP: Final = "active"
# Which messages to take structure from, best first; those of rank 2 only name the trigger.
_UNKNOWN: Final = 9
_STRUCTURE_RANK: Final = {
    h.AI_RUN_START: 0, h.AI_OUTPUT: 1, h.AI_RUN_RESUME: 2, h.AI_RUN_SUSPEND: 2, h.AI_RUN_END: 2,
}  # fmt: skip


@dataclass(slots=True, frozen=True)
class StepInfo:
    """One step of a turn: status of its latest attempt, and how many attempts there were."""

    step_id: str
    status: str
    attempt_count: int
    step_client_id: str

    def to_json(self) -> dict[str, Any]:
        """The JS SDK's form."""
        return {
            "stepId": self.step_id,
            "status": self.status,
            "attemptCount": self.attempt_count,
            "stepClientId": self.step_client_id,
        }


@dataclass(slots=True, frozen=True)
class RunInfo:
    """A turn as it is now.

    `client_id` is the owner ("" when anonymous); `status` is the project's word, `to_json` writes the SDK's.
    """

    run_id: str
    status: TurnStatus
    client_id: str = ""
    invocation_id: str = ""
    steps: tuple[StepInfo, ...] = ()
    error: ErrorInfo | None = None
    agent_client_id: str | None = None
    input_codec_message_id: str | None = None
    # A cancel has been seen that the agent did not refuse, and it has not had its effect yet.
    cancel_requested: bool = False
    # Of a pending turn that waits by policy: how many start before it, and itself.
    queue_position: int | None = None

    @property
    def shown_status(self) -> TurnStatus:
        """The status for people: `cancelling` from the cancel until the end or the agent's refusal."""
        return TurnStatus.CANCELLING if self.cancel_requested else self.status

    def to_json(self) -> dict[str, Any]:
        """`RunInfo` of the JS SDK."""
        wire: dict[str, Any] = {
            "runId": self.run_id,
            "clientId": self.client_id,
            "invocationId": self.invocation_id,
            "steps": [step.to_json() for step in self.steps],
            "status": _RUN_STATUS.get(self.status, self.status.value),
        }
        if self.error is not None:
            wire["error"] = self.error.to_wire()
        return wire


@dataclass(slots=True, frozen=True, order=True)
class _Wire:
    serial: str
    name: str = field(compare=False)
    headers: Headers = field(compare=False)


@dataclass(slots=True)
class _Step:
    start_serial: str
    status: str
    attempts: int
    client_id: str


class RunState:
    """The life cycle of one run, and what its other messages tell about it."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.status = TurnStatus.ACTIVE
        self.agent_client_id: str | None = None
        self.input_codec_message_id: str | None = None
        self.parent: str | None = None
        self.fork_of: str | None = None
        self.regenerates: str | None = None
        # Positions of cancels that name the run, and of the agent's refusals.
        self._cancels = {""}
        self._denials = {""}
        self._owner = ""
        self._invocation_id = ""
        self._error: ErrorInfo | None = None
        self._wires: list[_Wire] = []
        self._steps: dict[str, _Step] = {}
        self._suspensions: list[str] = []
        # Where the values above were taken from: (rank, serial), lower is better.
        self._author_evidence = (_UNKNOWN, "")
        self._structure_evidence = (_UNKNOWN, "")

    def observe(self, serial: str, name: str, headers: Headers, client_id: str | None) -> bool:
        """Take owner and structure from an agent's message; whether anything was taken.

        A run-start decides, whenever it is seen; else the earliest message that has the header (section 7.7).
        """
        took = False
        author_evidence = (0 if name == h.AI_RUN_START else 1, serial)
        if author_evidence < self._author_evidence:
            took, self._author_evidence = True, author_evidence
            self.agent_client_id = client_id
            self._owner = headers.get(h.RUN_CLIENT_ID) or ""
            self._invocation_id = headers.get(h.INVOCATION_ID) or ""
        structure_evidence = (_STRUCTURE_RANK.get(name, _UNKNOWN), serial)
        if structure_evidence < self._structure_evidence:
            took, self._structure_evidence = True, structure_evidence
            self.input_codec_message_id = headers.input_codec_message_id
            self.parent = headers.parent
            self.fork_of = headers.get(h.FORK_OF)
            self.regenerates = headers.get(h.MSG_REGENERATE)
        return took

    @property
    def is_started(self) -> bool:
        """Whether its run-start was seen."""
        return self._structure_evidence[0] == _STRUCTURE_RANK[h.AI_RUN_START]

    @property
    def owner(self) -> str:
        """Client id of the turn's owner; "" when anonymous or not known yet."""
        return self._owner

    @property
    def suspensions(self) -> Sequence[str]:
        """The serials of the messages that suspended the turn, oldest first."""
        return self._suspensions

    @property
    def cancel_requested(self) -> bool:
        """Whether a cancel has been seen that the agent did not refuse; the order of arrival does not matter."""
        return max(self._cancels) > max(self._denials)

    def note_cancel(self, serial: str, *, denied: bool = False) -> bool:
        """Take a cancel of this run, or its refusal; whether `cancel_requested` changed."""
        before = self.cancel_requested
        (self._denials if denied else self._cancels).add(serial)
        return self.cancel_requested != before

    def add(self, serial: str, name: str, headers: Headers) -> bool:
        """Take a life-cycle or step message; False when it was known."""
        wire = _Wire(serial, name, headers)
        if any(known.serial == serial for known in self._wires):
            return False
        insort(self._wires, wire)
        self._replay()
        return True

    def is_superseded(self, step_id: str | None, step_start_serial: str | None) -> bool:
        """Whether output of this attempt was replaced by a later attempt of its step (section 8.3)."""
        step = self._steps.get(step_id) if step_id is not None else None
        return step is not None and step_start_serial is not None and step.start_serial != step_start_serial

    def canonical_attempts(self) -> dict[str, str]:
        """The serial of the elected `ai-step-start` of every step."""
        return {step_id: step.start_serial for step_id, step in self._steps.items()}

    def info(self) -> RunInfo:
        """The run as it is now."""
        return RunInfo(
            self.run_id,
            self.status,
            self._owner,
            self._invocation_id,
            tuple(StepInfo(i, s.status, s.attempts, s.client_id) for i, s in self._steps.items()),
            self._error,
            self.agent_client_id,
            self.input_codec_message_id,
            self.cancel_requested and not self.status.is_terminal,
        )

    def _replay(self) -> None:
        self.status, self._error, self._steps = TurnStatus.ACTIVE, None, {}
        self._suspensions = []
        resumed_by: str | None = None
        for wire in self._wires:
            if wire.name in (h.AI_STEP_START, h.AI_STEP_END):
                self._replay_step(wire)
            elif wire.name == h.AI_RUN_RESUME and self.status is TurnStatus.SUSPENDED:
                self.status, resumed_by = TurnStatus.ACTIVE, wire.headers.get(h.INVOCATION_ID)
            elif wire.name == h.AI_RUN_START and not self.status.is_terminal:
                self.status = TurnStatus.ACTIVE
            elif wire.name == h.AI_RUN_SUSPEND and not self.status.is_terminal:
                # A suspend by an invocation that another has overtaken is stale.
                if resumed_by in (None, wire.headers.get(h.INVOCATION_ID)):
                    self.status = TurnStatus.SUSPENDED
                    self._suspensions.append(wire.serial)
            elif wire.name == h.AI_RUN_END:
                self._end(wire.headers)

    def _end(self, headers: Headers) -> None:
        try:
            reason = RunReason(headers.get(h.RUN_REASON) or h.COMPLETE)
        except ValueError:
            reason = RunReason.COMPLETE
        self.status = STATUS_OF_REASON[reason]
        self._error = read_error(headers) if reason is RunReason.ERROR else None

    def _replay_step(self, wire: _Wire) -> None:
        step_id = wire.headers.get(h.STEP_ID)
        if step_id is None:
            return
        step = self._steps.get(step_id)
        if wire.name == h.AI_STEP_START:
            client_id = wire.headers.get(h.STEP_CLIENT_ID) or ""
            attempts = step.attempts + 1 if step else 1
            self._steps[step_id] = _Step(wire.serial, _ACTIVE_STEP, attempts, client_id)
        elif step is not None and wire.headers.get(h.STEP_START_SERIAL) == step.start_serial:
            step.status = wire.headers.get(h.STEP_REASON) or h.COMPLETE


def read_error(headers: Headers) -> ErrorInfo:
    """The error of a run-end with reason `error` (protocol section 8.7)."""
    code = headers.get(h.ERROR_CODE) or ""
    number = int(code) if code.isascii() and code.isdigit() and len(code) <= 9 else DEFAULT_ERROR_CODE
    status = number // 100 if 10000 <= number <= 59999 else 500
    return ErrorInfo(number, status, headers.get(h.ERROR_MESSAGE) or DEFAULT_ERROR_MESSAGE)
