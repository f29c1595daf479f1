"""The language of the scripted model: `script:` and a list of `name=value`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from agent_worker.user_code.errors import AgentError

PREFIX: Final = "script:"
TOOLS: Final = ("server", "client")

_INVALID_ARGUMENT: Final = 40003


@dataclass(frozen=True, slots=True)
class ModelScript:
    """What the model is to do. Indexes count the answer's tokens from 0; None: never.

    `rate` is in tokens per second, 0 = as fast as possible. The failures happen at attempt 1 only, unless `always`.
    """

    # Streamed word by word, instead of numbered tokens.
    say: str | None = None
    tokens: int = 0
    rate: float = 0.0
    hang_at: int | None = None
    fail_at: int | None = None
    crash_at: int | None = None
    always: bool = False
    # Number of reasoning tokens before the answer.
    reasoning: int = 0
    tool: str | None = None
    approve: bool = False
    # Continues for some seconds after it was stopped, and writes again.
    ignore_abort: bool = False
    # The answer is the conversation the agent was given, as JSON.
    echo_context: bool = False


_KINDS: Final[Mapping[str, str]] = MappingProxyType(
    {f.name: str(f.type) for f in dataclasses.fields(ModelScript)}
)


def parse_script(text: str) -> ModelScript | None:
    """The script in a user's text; None when it is no script.

    Raises AgentError, which names the directive and is shown to the user, for one that is unknown or has a
    value of the wrong kind.
    """
    stripped = text.lstrip()
    if not stripped.startswith(PREFIX):
        return None
    body = stripped[len(PREFIX) :]
    given: dict[str, Any] = {}
    while body := body.lstrip():
        # The text to say has spaces in it, so it takes the rest of the line.
        word, rest = _line(body) if body.startswith("say=") else _word(body)
        name, equals, value = word.partition("=")
        if not equals or name not in _KINDS:
            raise _wrong(
                f"unknown directive {word.strip()!r}; known are {', '.join(_KINDS)}, each as name=value"
            )
        given[name] = _value(name, value)
        body = rest
    return dataclasses.replace(ModelScript(), **given)


def _word(body: str) -> tuple[str, str]:
    first = body.split(maxsplit=1)
    return first[0], first[1] if len(first) > 1 else ""


def _line(body: str) -> tuple[str, str]:
    line, _, rest = body.partition("\n")
    return line, rest


def _value(name: str, value: str) -> str | int | float | bool:
    kind = _KINDS[name]
    try:
        if kind.startswith("int"):
            return _not_negative(int(value))
        if kind == "float":
            return _not_negative(float(value))
    except ValueError:
        raise _wrong(f"{name}={value}: a number that is not negative is needed") from None
    if kind == "bool":
        if value not in ("0", "1"):
            raise _wrong(f"{name}={value}: 0 or 1 is needed")
        return value == "1"
    if name == "tool" and value not in TOOLS:
        raise _wrong(f"tool={value}: {' or '.join(TOOLS)} is needed")
    return value


def _not_negative(number: float) -> float:
    if not 0 <= number < float("inf"):
        raise ValueError
    return number


def _wrong(why: str) -> AgentError:
    return AgentError(
        f"the script cannot be followed: {why}", code=_INVALID_ARGUMENT, status_code=400, again=False
    )
