"""What every token passes through, compiled where that was possible.

`plain` has each function in Python, `_native.c` the same in C; which ones are used is decided here, once, at import.
`SELFHOST_TRANSPORT_PURE=1` in the environment refuses the compiled ones. `STATUS` says what was chosen, and why.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any, Final

from selfhost_transport.accelerator import plain
from selfhost_transport.accelerator.plain import AppendFrames as AppendFrames
from selfhost_transport.accelerator.plain import Template as Template

CONTRACT: Final = 1
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

append_frames = plain.append_frames if native is None else native.append_frames
append_command = plain.append_command if native is None else native.append_command
