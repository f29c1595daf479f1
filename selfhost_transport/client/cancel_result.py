"""The answer to a cancel, as an application gets it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CancelResult:
    """What a cancel did. No content of a matched turn has a position after `position`.

    Where the namespace is not bound to an agent, an agent has yet to act on it: `matched` are the turns it named.
    `denied`: turns that continue because their agents refused; `hook_failed`: those of the matched whose agent's hook failed,
    and which were cancelled all the same. `undecided`: turns whose agents had not decided in time; the session announces
    the decision.
    """

    position: str
    matched: tuple[str, ...] = ()
    already_ended: tuple[str, ...] = ()
    denied: tuple[str, ...] = ()
    hook_failed: tuple[str, ...] = ()
    undecided: tuple[str, ...] = ()
