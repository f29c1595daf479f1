"""The fields of every hash and stream in Redis: their words, the names under which they are stored, what they hold.

Scripts and Python name a field by its word: `TURN.status` in Lua, `TurnFields.STATUS` here. When a script is loaded, each word
becomes the stored name, which is short because it is stored with every turn. A name ending in `:` is that of many
fields, one per item; what follows names the item.

Hashes whose fields are names themselves (of turns, clients, exporters, processes) have no table: `keys.py` says what
they hold.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, Self


class Field(StrEnum):
    """A field: its stored name, and its meaning."""

    meaning: str

    def __new__(cls, stored: str, meaning: str) -> Self:
        """A member with its stored name as the value."""
        field = str.__new__(cls, stored)
        field._value_ = stored
        field.meaning = meaning
        return field


class SessionFields(Field):
    """The hash `s:<session>`."""

    EPOCH = "series", "names the log: positions of another epoch mean nothing in it"
    FLOOR = "floor", "position before the first entry of the live log"
    SUSPENDED = "suspended", "number of suspended turns"
    RETENTION = "rt", "how long messages are kept, in ms"
    CUT = "cut", "ms before which retention has taken turns and messages"
    TRIM_CURSOR = "tc", "how far the present pass of retention has come"
    TRIM_NEXT = "tn", "when what that pass left is due, in ms"
    TRIMMED = "tr", "newest position that retention has taken"
    ERASING = "er", "it is about to be erased, and takes nothing in"
    IMPORTED = "imported", "how far the import of another service's history has come"


class MessageFields(Field):
    """The hash `m:<ref>:<session>`: what changed since the message was created."""

    TYPE = "t", "letter of its data's type"
    VERSION = "v", "position of its newest version"
    ENCODING = "e", "encoding of its data"
    STATE = "b", "packed name and extras since an update or delete"
    EXTRAS = "x", "packed extras of its newest append"
    NAME = "n", "name given by an append"
    ACTION = "a", "letter of its newest change: A, U or D"
    OPERATION = "o", "packed operation of its newest change: who, why"
    SUMMARY = "y", "packed summary of its annotations"


class TurnFields(Field):
    """The hash `t:<turn>:<session>`."""

    # `cancelling` has three meanings. CANCEL_ENTRY without CANCEL_POSITION: its hook is asked, and its agent may still write.
    # CANCEL_POSITION: the hook has allowed it, and only a closing note may follow. CANCEL_MARKED beside it: nothing may follow,
    # and it is only to be closed.
    STATUS = "st", "pending, queued, active, cancelling, suspended, or how it ended"
    AGENT = "ag", "the agent it is for"
    OWNER = "ow", "client id of its sender, '' when anonymous"
    CONNECTION = "cn", "connection id of its sender"
    INPUT = "in", "codec message id of its input"
    INPUT_POSITION = "ip", "position of its input"
    BODY_HASH = "bh", "fingerprint of the send, tells a repeat from another send under the same id"
    POLICY = "po", "policy of the send"
    TOLERATED = "qm", "turns that may run beside it when it starts out of the session's queue"
    CONTEXT = "tr", "packed context for its agent"
    QUEUE_ITEM = "qi", "its item in the agent's queue"
    TERMINAL_POSITION = "tp", "position of its last entry"
    # Attempts.
    ATTEMPTS = "at", "attempts that were begun"
    HANDED_BACK = "hb", "those of them that do not count"
    LOST_WORKERS = "lw", "attempts that ended with a lost worker"
    MAX_ATTEMPTS = "ma", "attempts that count at most"
    ON_CRASH = "oc", "what a lost worker means: restart, continue or fail"
    CONTINUES = "co", "the next attempt continues in what the lost one left open"
    ALONE = "ap", "the attempt runs alone: `waits` to begin, or `begun`"
    RESUMES = "ri", "the next attempt begins an invocation"
    FENCE = "fn", "number of the newest fence"
    WORKER = "wk", "the worker or process that holds it"
    WRITE_SEQUENCE = "sq", "sequence of the attempt's newest write"
    WRITE_REPLY = "sr", "reply to that write, for its repeat"
    # Cancels.
    CANCEL_POSITION = "cp", "position of the cancel that ended it"
    CANCEL_ENTRY = "ce", "position of the cancel that its hook is asked about"
    CANCEL_REQUESTER = "cr", "client id that asked for that cancel"
    CANCEL_MARKED = "cm", "cancelled, and still to be closed"
    HOOK_GRACE = "hk", "ms that its cancel hook has, '' without a hook"
    HOOK_DEFAULT = "hd", "what an undecided hook means: allow or deny"
    # Messages that scripts write when there is no worker to do it, packed.
    RUN_START = "rs", "opens the turn, or its next invocation"
    STEP_OPENING = "ss", "opens a step of a worker's attempt"
    STEP_CANCELLED = "sc", "closes the step of a cancelled turn"
    STEP_FAILED = "sf", "closes the step of a turn that is lost"
    RUN_CANCELLED = "rc", "ends a cancelled turn"
    RUN_LOST = "re", "ends a turn whose attempts are used up"
    RUN_MERGED = "rm", "ends a turn that another one answers too"
    NEXT = (
        "n",
        "followed by a field of the closing messages or the context: that of the invocation after a suspension",
    )
    OPEN_MESSAGE = "o:", "of an open message, by its ref: what closes it as cancelled"
    # Suspension.
    AWAITED = "aw", "calls it waits for, a JSON list"
    ANSWER = "k:", "of an answered call: position of the answer"
    EXPIRY_ANSWER = "d:", "of an awaited call: entry that answers it after the limit"
    ESCALATION = "es", "entry that is written when it has waited too long"
    EXPIRES_AT = "ex", "when it has waited for as long as it may, in ms"
    # What a repeated call is answered with.
    END_FENCE = "ef", "fence under which it was ended"
    DETACH_FENCE = "df", "fence under which it was given up"
    SUSPEND_FENCE = "sf_fence", "fence under which it was suspended"
    SUSPEND_POSITION = "sf_at", "position of that suspension"
    # Turns that processes work on step by step.
    ADOPTION_WINDOW = "dw", "ms that it may be without a holder"
    HELD_BY_REQUEST = "by", "the request that made the present holder one"
    STEP_START = "sp", "serial of the open step's start, '' without one"
    STEP_ID = "si", "id of the newest step"
    STEP_SERIAL = "sl", "serial of its start"
    STEP_OUTCOME = "sx", "its outcome: open, complete or failed"
    STEP_REQUEST = "sn", "the request that opened it"
    STEP_ABANDONED = "sd", "entry that closes it when its holder is lost"
    STEP_COUNT = "sk", "number of step ids"
    STEP_ATTEMPTS = "S:", "of a step id: attempts at it"


class PaceFields(Field):
    """The hash `pace:<agent>`."""

    TAKES = "n", "decayed count of turns taken while turns waited"
    NEEDED = "ms", "time those needed in ms, decayed likewise"
    NOTED = "at", "when both were computed, in ms"


class ConnectionFields(Field):
    """The hash `o:<connection>`: who holds the presence members of a connection."""

    OWNER = "owner", "the socket"
    NODE = "node", "its process"
    REMAIN = "remain", "ms that the members outlive the socket"
    SESSION = "s:", "of a session in which the connection has members: 1"


class LogFields(Field):
    """Items of the streams `l:`, `h:`, `v:`, `b:` and `k:`."""

    ENTRY = "e", "the packed entry"


class QueueFields(Field):
    """Items of the stream `q:<agent>`."""

    TURN = "t", "turn id"
    SESSION = "s", "its session"


class DeadLetterFields(Field):
    """Items of the stream `dead`."""

    TURN = "t", "turn id"
    SESSION = "s", "its session"
    ATTEMPTS = "at", "attempts that count"
    WORKER = "wk", "the worker of the last one"


class EndedFields(Field):
    """Items of the streams `ended:<exporter>` and `undelivered:<exporter>`."""

    TURN = "t", "turn id"
    SESSION = "s", "its session"
    EPOCH = "se", "the session's epoch"
    STATUS = "st", "how it ended"
    AGENT = "ag", "its agent"
    OWNER = "ow", "client id of its sender, '' when anonymous"
    FIRST = "ip", "position of its input"
    LAST = "tp", "position of its terminal"
    OPEN = "op", "position of the session's first input that was still worked on, else of the terminal"
    EVENT = "ev", "what happened: ended, or, for webhooks and pushes, suspended, escalated or dead"
    ERROR = "er", "why it was given up; in `undelivered:<exporter>`"
    EVENT_ID = "id", "what its receiver knows it by, where that is not its item: of one that was given up"


class PushFields(Field):
    """The hash `d:<delivery>` of pushes, and items of their stream `undelivered`."""

    PERSON = "p", "client id of who it is for"
    SUBSCRIPTION = "s", "the subscription"
    CONTENT = "c", "what it says, JSON"
    ATTEMPTS = "at", "attempts that count"
    DELIVERY = "d", "its delivery; in `undelivered`"
    ERROR = "er", "why it was given up; in `undelivered`"


IN_LUA: Final[dict[str, type[Field]]] = {
    "SESSION": SessionFields,
    "MESSAGE": MessageFields,
    "TURN": TurnFields,
    "PACE": PaceFields,
    "CONNECTION": ConnectionFields,
    "LOG": LogFields,
    "QUEUE": QueueFields,
    "DEAD_LETTER": DeadLetterFields,
    "ENDED": EndedFields,
    "PUSH": PushFields,
}
"""The tables by their names in scripts."""
