"""What every token passes through, compiled where that was possible.

`plain` and `plain_fan_out` have everything in Python, `_native.c` and `_fan_out.h` the same in C; which ones are used is
decided here, once, at import.
`SELFHOST_TRANSPORT_PURE=1` in the environment refuses the compiled ones. `STATUS` says what was chosen, and why.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from selfhost_transport.accelerator import plain, plain_fan_out
from selfhost_transport.accelerator.plain import AppendFrames as AppendFrames
from selfhost_transport.accelerator.plain import Template as Template

CONTRACT: Final = 2
"""What the functions take and return; a binary that was built for another one is not used."""


def _compiled() -> tuple[Any, str]:
    """The compiled module or None, and what is to be said of it."""
    if os.environ.get("SELFHOST_TRANSPORT_PURE", "") not in ("", "0"):
        return None, "not used: SELFHOST_TRANSPORT_PURE is set"
    try:
        module = import_module("selfhost_transport.accelerator._native")
    except ImportError as error:
        return None, f"not there, Python does the same more slowly ({error})"
    if module.CONTRACT != CONTRACT:
        return None, "not used: it was built from another version's source; install again"
    return module, "compiled"


native, STATUS = _compiled()
"""`native`: the compiled functions, or None."""

SENDS: Final = native is not None
"""Whether a `SendBuffer` sends to its `fd` itself; else all goes through `spill`."""

append_frames = plain.append_frames if native is None else native.append_frames
append_command = plain.append_command if native is None else native.append_command

if TYPE_CHECKING:
    from selfhost_transport.accelerator.plain_fan_out import Lane, SendBuffer, Way, hand_out, send_all
else:
    _fan_out = plain_fan_out if native is None else native
    Lane, SendBuffer, Way = _fan_out.Lane, _fan_out.SendBuffer, _fan_out.Way
    hand_out, send_all = _fan_out.hand_out, _fan_out.send_all

__all__ = [
    "CONTRACT",
    "SENDS",
    "STATUS",
    "AppendFrames",
    "Lane",
    "SendBuffer",
    "Template",
    "Way",
    "append_command",
    "append_frames",
    "hand_out",
    "native",
    "send_all",
]
