"""Runs the examples of a page in one interpreter, as a reader would who types them one after the other."""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import re
from collections.abc import Iterable

from tests.documentation.blocks import Block


async def run_in_order(examples: Iterable[Block], names: dict[str, object], address: str) -> None:
    """Run them, with `address` in place of 127.0.0.1:8080; what a block prints must be what the page shows."""
    for example in examples:
        printed = await run(example, names, address)
        if example.shown is not None:
            assert is_shown(printed, example.shown.replace("127.0.0.1:8080", address)), (
                f"{example.name} prints\n{printed}"
            )


def is_shown(printed: str, shown: str) -> bool:
    """Whether a page shows what was printed; an ellipsis stands for the rest of a line."""
    pattern = re.escape(shown).replace("…", r"[^\n]*")
    return re.fullmatch(pattern, printed) is not None


async def run(example: Block, names: dict[str, object], address: str) -> str:
    """Run one; what it printed."""
    text = "\n" * example.line + example.text.replace("127.0.0.1:8080", address)
    compiled = compile(text, example.page, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        result = eval(compiled, names)
        if inspect.isawaitable(result):
            await result
    return output.getvalue()
