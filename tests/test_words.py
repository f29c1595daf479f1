"""One word for one thing: the words that were given up are in no name and in no text of the project."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent

GIVEN_UP: Final = {
    "series": "epoch",
    "seam": "resume point",
    "seams": "resume points",
    "piece": "chunk, append or frame",
    "pieces": "chunks, appends or frames",
    "SeamLost": "ResumePointLost",
    "Share": "Attachments",
    "Piece": "OutputChunk",
    "Whereabouts": "AddressResolver",
    "Repeated": "prepared call",
    "Moment": "Event",
    "calm_collector": "gc tuning",
    "OccupancyBoard": "OccupancyTracker",
    "PresenceKeeper": "PresenceLease",
    "retention_keeper": "retention sweeper",
    "Court": "CancelVoting",
    "Deposit": "closing messages",
    "deposit": "closing messages",
    "deposits": "closing messages",
    "deposited": "closing messages",
    "keepsake": "trim info",
    "WentBack": "LogRewound",
    "last_word": "closing_note",
    "for_ever": "keep_forever",
    "for ever": "forever",
    "EVERYBODY": "MUTE_ALL",
    "crowded": "backpressured",
    "go_stale": "mark_slow",
    "hear_of": "subscribe",
    "bring_in": "collect",
    "Intake": "QueueReader",
    "_look_after": "_log_errors",
    "_deaf": "_read_closed",
    "_EveryPath": "CatchAllRoute",
    "_thawed": "_mutable_copy",
    "whoever": "anyone who",
    "somebody": "someone, another, a client",
    "nobody": "no one, no client",
    "everybody": "all, every client",
    "anybody": "anyone, any client",
    "told": "sent, shown, said, given",
    "_tell": "send, report, announce, notify",
    "#tell": "send, report, announce, notify",
    "isTold": "isShown, isSent",
    "Telling": "TurnOutput",
    "tell_exporters": "queue_for_exporters",
    "tell_queued": "announce_queued",
}
"""The words, and what is said instead."""

NOT_OURS: Final = re.compile(
    r"(?:.*/)?(?:node_modules|static|vectors)/"
    # Recordings, built files and locks; what lists former names; this file; other programs' text.
    r"|CHANGELOG\.md|tests/test_words\.py|tests/test_deprecations\.py|.*package-lock\.json"
    r"|tests/compat/(?:go_sdk|java_sdk)/"
)

# Stored and public names that stay, each with its reason.
ALLOWED: Final = {
    "selfhost_transport/store/fields.py": {"series"},  # the stored name of a session's epoch
    "tests/store/test_scripts.py": {"series"},
    "docs/decisions/names-in-scripts.md": {"series"},
    "docs/chat-page.md": {"Share"},  # the name of a button
    "gateway/web/src/header.tsx": {"Share"},  # the button
    # Former names, which work for one release.
    "selfhost_transport/errors.py": {"WentBack", "SeamLost"},
    "selfhost_transport/turns/seed.py": {"seam"},
    "selfhost_transport/exporter.py": {"seam"},
    "agent_worker/__init__.py": {"Piece"},
    "agent_worker/agent/turn.py": {"last_word"},
    "agent_worker/agent/cancel_hook.py": {"last_word"},
    # A parameter of the gateway's REST interface that clients of 0.1 send: `deletes=told`.
    "gateway/rest/channels.py": {"told"},
    "selfhost_transport/client/rest.py": {"told"},
    "selfhost_transport/importer/source.py": {"told"},
}

# A word of the language is given up at the beginning of a sentence, too.
_FORMS: Final = {form for word in GIVEN_UP for form in (word, word[0].upper() + word[1:])}
_WORD: Final = re.compile(
    rf"(?<![A-Za-z0-9])(?:{'|'.join(sorted(map(re.escape, _FORMS), key=len, reverse=True))})(?![A-Za-z0-9])"
)


def texts() -> list[tuple[str, str]]:
    """Every text file of the project, by its path."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = []
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if not NOT_OURS.match(name) and not re.search(r"\.(?:png|sum)$", name) and path.is_file():
            found.append((name, path.read_text()))
    return found


def test_words_that_were_given_up_are_gone() -> None:
    found = [
        f"{name}:{number}: {word[0]!r}, say {GIVEN_UP.get(word[0], GIVEN_UP.get(word[0].lower()))}"
        for name, text in texts()
        for number, line in enumerate(text.splitlines(), 1)
        for word in _WORD.finditer(line)
        if word[0].strip("_") not in ALLOWED.get(name, ())
    ]
    assert len(texts()) > 900
    assert not found, "\n".join(found)


def test_what_is_allowed_is_used() -> None:
    by_name = dict(texts())
    unused = {name: word for name, words in ALLOWED.items() for word in words if word not in by_name[name]}
    assert not unused
