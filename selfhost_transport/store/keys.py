"""Names of every key and channel in Redis, written once.

A session lives in bucket `crc16(name) mod buckets`; every key of the session, of its turns, and the
bucket's work queue carry the hash tag `{b<n>}`, so that one script may touch them all, on Cluster too.
Scripts build the same names from the bucket's base; the letters below are the contract between both. The fields of hashes
and streams are in fields.py.

Of a session:

| key                 | type   | holds                                                     | lives until                |
|---------------------|--------|-----------------------------------------------------------|----------------------------|
| `s:<session>`       | HASH   | epoch, floor of the log; how far an import has come       | retention; unused: minutes |
| `p:<session>`       | STRING | head: the newest position                                 | as the session             |
| `l:<session>`       | STREAM | live log, trimmed to the resume window                    | window after the last turn |
| `h:<session>`       | STREAM | history: one item per publish, at its position            | retention                  |
| `g:<session>`       | HASH   | turn -> where it begins and ends; question -> its turn    | retention                  |
| `i:<id>:<session>`  | STRING | result of a publish, for repeats                          | idempotency window         |
| `erasing:<session>` | STREAM | history of a session that is being erased                 | it is erased               |
| `erased:<digest>`   | STRING | tombstone: SHA-1 of the name of a session that was erased | a day after that           |

Of a session's messages:

| key                 | type   | holds                                               | lives until |
|---------------------|--------|-----------------------------------------------------|-------------|
| `m:<ref>:<session>` | HASH   | record of a message that was appended to or changed | retention   |
| `x:<ref>:<session>` | STRING | assembled data of that message                      | retention   |
| `v:<ref>:<session>` | STREAM | versions of that message (updates and deletes)      | retention   |
| `b:<ref>:<session>` | STREAM | annotations of that message, capped                 | retention   |
| `z:<ref>:<session>` | HASH   | what each client has added to its annotations       | retention   |

Of a session's turns:

| key                  | type   | holds                                                            | lives until                 |
|----------------------|--------|------------------------------------------------------------------|-----------------------------|
| `a:<session>`        | HASH   | turns without a terminal: turn id -> owner                       | the last terminal           |
| `open:<session>`     | ZSET   | the same turns, by the position of their input                   | the last terminal           |
| `w:<session>`        | LIST   | turns waiting by policy `queue`                                  | they start or end           |
| `t:<turn>:<session>` | HASH   | the turn                                                         | a day after its terminal    |
| `f:<turn>:<session>` | STRING | fence: present while a worker may write for the turn             | terminal, cancel, take-over |
| `y:<turn>:<session>` | LIST   | steers the turn's worker has not taken yet                       | they are taken; terminal    |
| `c:<id>:<session>`   | STRING | a cancel that arrived before its turn: `turn <id>`, `input <id>` | idempotency window          |
| `e:<id>:<session>`   | STRING | turn id of an input event, for the wake-up request               | a day                       |

Of a session's members and readers:

| key                  | type   | holds                                     | lives until                 |
|----------------------|--------|-------------------------------------------|-----------------------------|
| `r:<session>`        | HASH   | roster: `<connection> <client>` -> member | the last member leaves      |
| `k:<session>`        | STREAM | presence history, capped                  | as the session              |
| `j:<session>`        | HASH   | occupancy: process -> its part            | 90 s after it was published |
| `u:<conn>:<session>` | SET    | client ids that a connection entered      | the last of them leaves     |

Of a bucket, its turns and what is due:

| key              | type   | holds                                                     | lives until                  |
|------------------|--------|-----------------------------------------------------------|------------------------------|
| `q:<agent>`      | STREAM | the bucket's work queue, group `workers`                  | the bucket                   |
| `pace:<agent>`   | HASH   | how fast the queue's turns are taken                      | a minute after the last take |
| `idle:<agent>`   | ZSET   | workers that found the queue empty, by when; capped       | an hour after the last one   |
| `called:<agent>` | STRING | all workers were called, none found the queue empty since | that happens; 5 s            |
| `leases`         | ZSET   | `<turn> <session>` by lease expiry; a pair of names.py    | the bucket                   |
| `swept`          | STRING | when leases were last checked, until when none is taken   | an hour                      |
| `deadlines`      | ZSET   | `<turn> <session>` by when something is due               | the bucket                   |
| `dead`           | STREAM | dead letters                                              | the bucket, capped           |
| `stats`          | HASH   | turns ended by outcome, leases lost                       | the bucket                   |
| `retention`      | ZSET   | sessions with a retention limit, by their next trim       | the bucket                   |

Of a bucket, its exporters:

| key                      | type   | holds                                                 | lives until                |
|--------------------------|--------|-------------------------------------------------------|----------------------------|
| `exporters`              | HASH   | exporter -> how many ended turns it may leave waiting | they are forgotten         |
| `ended:<exporter>`       | STREAM | turns that ended, group `exporter`, until exported    | exported; capped; as above |
| `undelivered:<exporter>` | STREAM | deliveries that were given up                         | 30 days; capped            |
| `dropped`                | HASH   | exporter -> turns beyond its cap                      | they are forgotten         |

Of a bucket, the connections and processes of its sessions' members and readers:

| key              | type | holds                                                 | lives until            |
|------------------|------|-------------------------------------------------------|------------------------|
| `o:<connection>` | HASH | who holds a connection with members, and its sessions | its last member leaves |
| `d:<node>`       | SET  | connections with members that a process holds         | they leave or move     |
| `nodes`          | ZSET | processes that hold members, by lease expiry          | the bucket             |
| `gone`           | ZSET | lost connections by the time their members leave      | the bucket             |
| `used`           | ZSET | sessions with attachments, by expiry                  | the bucket             |

Pushes have a hash tag of their own, `{push}`, so that a subscription and what is queued for it change together:

| key            | type   | holds                                      | lives until                   |
|----------------|--------|--------------------------------------------|-------------------------------|
| `of:<person>`  | HASH   | a person's push subscriptions              | `push.keep` after its renewal |
| `people`       | ZSET   | who has subscriptions, by when they expire | as the newest of those        |
| `due`          | ZSET   | deliveries, by when they are tried         | as the newest of those        |
| `d:<delivery>` | HASH   | a delivery                                 | made; `push.ttl`              |
| `sent:<event>` | STRING | an event that was queued already           | `push.ttl`                    |
| `undelivered`  | STREAM | deliveries that were given up              | 30 days; capped               |

Outside these: `agents:<agent>`, a ZSET of the workers that serve an agent, which lives while they renew it,
`format`, the version of all this (format.py), and `deployment`, what its processes agree on (deployment.py).

Of two parts, as `t:<turn>:<session>`, the first is escaped (names.py): it ends at its colon, and the session is all the
rest. A `<ref>` is the service's own, `<position>:<index>`. So no two items of any sessions share a key.

Channels: `n:<session>` carries each entry of the session, `ctl:<worker>` calls a worker and pushes cancels of its turns,
`ctl` does so for all of them, `came:<agent>` announces each turn that waits for an agent, `ended:<exporter>` one that is to be
exported, `j:<session>` that occupancy has changed. In a database other than 0 of its server, the names of channels end with a
line break and the number, because pub/sub is one for all of them (`redis_io/databases.py`).
"""

from __future__ import annotations

import binascii
from dataclasses import dataclass
from typing import Final

from selfhost_transport.store.names import part

OWNED = (
    "s:",
    "erasing:",
    "p:",
    "l:",
    "h:",
    "m:",
    "x:",
    "v:",
    "b:",
    "z:",
    "g:",
    "a:",
    "open:",
    "w:",
    "f:",
    "t:",
    "y:",
    "q:",
    "leases",
    "deadlines",
    "stats",
    "dead",
    "exporters",
    "ended:",
    "dropped",
    "retention",
    "r:",
    "k:",
    "o:",
    "u:",
    "d:",
    "used",
    "nodes",
    "gone",
)
"""Key families without a TTL of their own; each has the owner named in the table above."""

OF_SESSION: Final = frozenset(
    {b"s", b"erasing", b"p", b"l", b"h", b"g", b"a", b"open", b"w", b"r", b"k", b"j"}
)
"""Families `<letter>:<session>`."""
_OF_ITEM: Final = frozenset({b"i", b"c", b"e", b"t", b"f", b"y", b"u"})
_OF_MESSAGE: Final = frozenset({b"m", b"x", b"v", b"b", b"z"})

WORKER_GROUP = "workers"
DEFAULT_BUCKETS = 16
"""Of a deployment on one server; a Cluster has more (deployment.py)."""


def session_in(rest: bytes) -> bytes | None:
    """The session that a key is of, where `rest` follows its bucket's base; None for what is of no one session.

    `<letter>:<session>`, `<letter>:<part>:<session>`, and `<letter>:<position>:<index>:<session>`.
    """
    family, colon, name = rest.partition(b":")
    if not colon or family in OF_SESSION:
        return name if colon else None
    _, colon, session = name.partition(b":")
    if colon and family in _OF_MESSAGE:
        _, colon, session = session.partition(b":")
    return session if colon and family in _OF_ITEM | _OF_MESSAGE else None


def bucket_of(session: str, buckets: int) -> int:
    """The bucket of a session: crc16 (XMODEM, as Redis Cluster uses) modulo the number of buckets."""
    return binascii.crc_hqx(session.encode(), 0) % buckets


@dataclass(frozen=True, slots=True)
class Keyspace:
    """Builds names under one prefix; `buckets` must be the same for every process of a deployment."""

    prefix: str = "sht"
    buckets: int = DEFAULT_BUCKETS

    def base(self, bucket: int) -> str:
        """What every key of a bucket starts with."""
        return f"{self.prefix}:{{b{bucket}}}:"

    def base_of(self, session: str) -> str:
        """The base of the bucket a session belongs to."""
        return self.base(bucket_of(session, self.buckets))

    def bases(self) -> list[str]:
        """The bases of all buckets."""
        return [self.base(bucket) for bucket in range(self.buckets)]

    @property
    def push(self) -> str:
        """What the keys of pushes start with."""
        return f"{self.prefix}:{{push}}:"

    def fleet(self, agent: str) -> str:
        """The key of the workers that serve an agent."""
        return f"{self.prefix}:agents:{agent}"

    def of_item(self, letter: str, item: str, session: str) -> str:
        """The key of a family that has one per turn, event or receipt of a session: whatever its id holds."""
        return f"{self.base_of(session)}{letter}:{part(item)}:{session}"

    def channel(self, session: str) -> str:
        """The pub/sub channel on which the session's entries are announced."""
        return f"{self.base_of(session)}n:{session}"
