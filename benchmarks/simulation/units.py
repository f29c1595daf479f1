"""What the simulation knows of the program: costs of its parts, as measured. One JSON file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import msgspec

MEASURED = Path(__file__).parent / "units.json"
"""The costs of the machine that docs/performance.md speaks of."""

ROLES = ("generator", "gateway", "redis", "worker")


@dataclass(frozen=True, slots=True)
class RoleCost:
    """Microseconds of CPU of one process: each time it is woken, and for each token, append and turn that passes it."""

    wake: float = 0.0
    token: float = 0.0
    append: float = 0.0
    turn: float = 0.0


@dataclass(frozen=True, slots=True)
class MeshCost:
    """What more processes cost, in microseconds of CPU.

    `redis_socket`, `process_socket`: for each further connection that a round of Redis, or of a Python process, touches;
    read and write together. `notice`: Redis, for each subscriber of a notification. `empty_take`: a worker asking an empty
    queue, of Redis and of itself.
    """

    redis_socket: float = 0.0
    process_socket: float = 0.0
    notice: float = 0.0
    empty_take_redis: float = 0.0
    empty_take_worker: float = 0.0


@dataclass(frozen=True, slots=True)
class Units:
    """Everything measured. `rest`: cores that are busy besides the roles. `hop_us`: a message from process to process,
    without the CPU of either. `window_ms`, `tick_ms`: how long a worker gathers tokens, and the grid on which that ends.
    `redis_batch`: appends that Redis reads from one connection at a time. `measured_knee`: turns, by `loadtest ramp --local`
    on the same machine; nothing is computed from it.
    """

    commit: str
    python: str
    roles: dict[str, RoleCost] = field(default_factory=dict)
    mesh: MeshCost = MeshCost()
    rest: float = 0.0
    hop_us: float = 30.0
    window_ms: float = 40.0
    tick_ms: float = 5.0
    redis_batch: int = 45
    cores: int = 2
    measured_knee: int = 0

    @classmethod
    def load(cls, path: Path = MEASURED) -> Units:
        """Read what `save` wrote."""
        return msgspec.json.decode(path.read_bytes(), type=cls)

    def save(self, path: Path = MEASURED) -> None:
        """Write as JSON."""
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")
