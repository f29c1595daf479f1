"""Bodies of the plain HTTP API, as documented by OpenAPI. Names are camelCase on the wire."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from selfhost_transport.store.turn_store import Policy


class _Wire(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")


class TextPartIn(_Wire):
    """A text part."""

    type: Literal["text"] = "text"
    text: str


class FilePartIn(_Wire):
    """A file, by its URL."""

    type: Literal["file"]
    url: str
    media_type: str


class FilterIn(_Wire):
    """Which turns: exactly one of these."""

    turn_id: str | None = None
    """One turn."""
    input_id: str | None = None
    """The turn of the message with this id, also before it has started."""
    own: bool = False
    """The caller's own turns."""
    client_id: str | None = None
    """The turns of one client."""
    all: bool = False
    """Every turn of the session."""

    @model_validator(mode="after")
    def _names_one(self) -> FilterIn:
        named = [self.turn_id, self.input_id, self.own or None, self.client_id, self.all or None]
        if sum(item is not None for item in named) != 1:
            raise ValueError("name exactly one of turnId, inputId, own, clientId, all")
        return self


class SendIn(_Wire):
    """A message that a turn is to answer."""

    text: str | None = None
    """The message; or give `parts`."""
    parts: list[TextPartIn | FilePartIn] | None = None
    id: str | None = Field(default=None, min_length=1, max_length=128)
    """Id of the message. A send repeated with the same id is the same turn; absent: a fresh one."""
    parent: str | None = None
    """Id of the message before it. Not given: the last one of the conversation, or of what `forkOf` names, the one
    before that. null: it is the first."""
    fork_of: str | None = None
    """Id of the message that this one replaces."""
    policy: Policy | None = None
    """What to do while another turn is active; absent: as the namespace says."""
    interrupts: FilterIn | None = None
    """With policy `interrupt`: the turns to cancel in the same step; absent: the caller's own turns."""
    client_id: str | None = None
    """Whom to send as, where the credentials leave that open."""

    @model_validator(mode="after")
    def _has_content(self) -> SendIn:
        _require_content(self)
        return self


class SendOut(_Wire):
    """The turn that was accepted."""

    turn_id: str
    message_id: str
    status: str
    position: str
    serials: list[str | None]
    repeated: bool
    interrupted: list[str]
    waiting: int = 0
    """Turns that wait before this one."""


class CancelIn(FilterIn):
    """Which turns to end."""

    acting_client_id: str | None = None
    """Whom to cancel as, where the credentials leave that open."""


class CancelOut(_Wire):
    """What a cancel did: nothing of the matched turns has a later position."""

    position: str
    matched: list[str]
    already_ended: list[str]
    denied: list[str] = []
    """Turns that continue: their agents refused."""
    hook_failed: list[str] = []
    """Those of the matched whose agent's hook could not decide, which counted as consent."""
    undecided: list[str] = []
    """Turns whose agents had not decided in time: the session announces the decision."""


class TurnOut(_Wire):
    """The state of a turn."""

    turn_id: str
    status: str
    agent: str
    owner: str | None
    input_id: str
    attempts: int
    worker: str | None
    position: str | None
    """Of the terminal, once there is one."""
    queue_position: int | None = None
    """Of a turn that waits by policy: 1 starts next."""


class TurnsOut(_Wire):
    """The turns of a session that have no terminal yet."""

    turns: list[TurnOut]
    agents: int
    """Workers that serve the session's agent; with 0, queued turns wait for one."""
    queued: int
    """Turns that no worker has taken yet."""


class SteerIn(_Wire):
    """A message into a turn."""

    text: str | None = None
    """The message; or give `parts`."""
    parts: list[TextPartIn | FilePartIn] | None = None
    id: str | None = Field(default=None, min_length=1, max_length=128)
    """Id of the message; repeated with the same id it is the same input."""
    client_id: str | None = None
    """Whom to send as, where the credentials leave that open."""

    @model_validator(mode="after")
    def _has_content(self) -> SteerIn:
        _require_content(self)
        return self


class AnswerIn(_Wire):
    """The answer to one call: `output` or `error` of a client tool, or `approved`."""

    call_id: str = Field(min_length=1)
    """The tool call."""
    output: Any = None
    """The tool's result; absent means null, unless `error` or `approved` is given."""
    error: str | None = None
    """The tool failed."""
    approved: bool | None = None
    """Whether the call may run."""
    reason: str | None = None
    """Why it was approved or not."""
    message_id: str | None = None
    """The assistant message that made the call; absent: looked up."""
    id: str | None = Field(default=None, min_length=1, max_length=128)
    """Id of the answer; repeated with the same id it is the same answer."""
    client_id: str | None = None
    """Whom to answer as, where the credentials leave that open."""

    @model_validator(mode="after")
    def _is_one_answer(self) -> AnswerIn:
        given = [self.error, self.approved, "output" if "output" in self.model_fields_set else None]
        if sum(item is not None for item in given) > 1:
            raise ValueError("give one of output, error, approved")
        return self


class InputOut(_Wire):
    """An input that a turn has taken. `status` is the turn's: `pending` when the input resumed it."""

    turn_id: str
    status: str
    position: str
    repeated: bool


class WaitingOut(_Wire):
    """A turn that waits by policy."""

    turn_id: str
    position: int
    owner: str | None


class QueueOut(_Wire):
    """The session's queue."""

    agents: int
    queued: int
    turns: list[WaitingOut]


class PromoteOut(_Wire):
    """Whether the turn was waiting, and so was started."""

    promoted: bool


class MessagesOut(_Wire):
    """A session's conversation on its newest branch, oldest first; `turns` are those on it."""

    messages: list[dict[str, Any]]
    turns: list[dict[str, Any]]
    truncated: bool
    """Whether older messages were left out."""
    truncated_at: str | None = None
    """Up to here the session's retention has removed older messages; set once nothing else was left out."""


class EntriesOut(_Wire):
    """Messages after a position, oldest first, as the protocol's REST shows them."""

    entries: list[dict[str, Any]]
    next: str
    """The position to continue from."""
    more: bool
    """Whether there is more at the moment."""
    truncated_at: str | None = None
    """Retention has taken messages between the position asked for and this one."""


class WakeIn(BaseModel):
    """What the AI Transport SDK posts after publishing an input; other fields of the application are ignored."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore")

    input_event_id: str
    session_name: str


class WakeOut(_Wire):
    """The turn that the input started, if it is known already."""

    run_id: str | None = None


def _require_content(body: SendIn | SteerIn) -> None:
    if (body.text is None) == (body.parts is None):
        raise ValueError("give either text or parts")
    texts = [body.text] if body.parts is None else [getattr(part, "text", None) for part in body.parts]
    if texts and all(text is not None and not text.strip() for text in texts):
        raise ValueError("the message is empty; write something")
