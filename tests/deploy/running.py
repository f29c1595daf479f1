"""Runs what a file of deploy/ would run: its command, in its environment, with paths and addresses of this machine."""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx

from tests.processes import Proc, Stack, wait_until

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"
_VARIABLE = re.compile(r"\$\$|\$\{(\w+)(?::([?-])([^}]*))?\}|\$(\w+)")


def interpolated(text: str, values: Mapping[str, str]) -> str:
    """As Compose and Kubernetes do: `${NAME}`, `${NAME:-default}`, `${NAME:?reason}`, `$$` for a dollar.

    Raises KeyError, with the reason, for a value that is required and not there.
    """

    def replaced(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        name, kind, rest = found[1] or found[4], found[2], found[3]
        if values.get(name):
            return values[name]
        if kind == "-":
            return rest
        raise KeyError(f"{name}: {rest}")

    return _VARIABLE.sub(replaced, text)


def environment_file(path: Path) -> dict[str, str]:
    """The values of an `.env` of Compose; a later one may use an earlier one."""
    values: dict[str, str] = {}
    for line in path.read_text().splitlines():
        if line and not line.startswith("#"):
            name, _, text = line.partition("=")
            values[name] = interpolated(text, values)
    return values


class Host:
    """This machine in the place of a container or a server: `moved` maps their paths and addresses to those here."""

    def __init__(self, stack: Stack, moved: Mapping[str, str]) -> None:
        self._stack = stack
        self._moved = moved

    def here(self, text: str) -> str:
        """A text of the file with what it names moved here."""
        for there, here in self._moved.items():
            text = text.replace(there, here)
        return text

    async def start(self, words: Sequence[str], env: Mapping[str, str], folder: Path | None = None) -> Proc:
        """Start `selfhost-transport WORDS` and wait until it is ready; ports are any free ones."""
        command = [self.here(word) for word in words]
        for flag in ("--port", "--metrics-port"):
            if flag in command:
                command[command.index(flag) + 1] = "0"
        moved = {name: self.here(value) for name, value in env.items()}
        return await self._stack.started(*command, env=moved, cwd=folder)


async def reports_its_turns(worker: Proc) -> None:
    """A worker's metrics answer at the port that its command names, with what it has done."""
    (line,) = [line for line in worker.lines if line.startswith("metrics ")]
    async with httpx.AsyncClient() as http:
        figures = (await http.get(line.split()[1])).text
    assert 'sht_worker_attempts_total{outcome="completed"} 1.0' in figures, figures


async def answer(url: str, auth: tuple[str, str], question: str, ca: Path | None = None) -> str:
    """The conversation after the agent of a running deployment has answered a question. `ca`: what signed its certificate."""
    verify = True if ca is None else ssl.create_default_context(cafile=ca)
    async with httpx.AsyncClient(base_url=url, auth=auth, verify=verify) as http:
        path = "/v1/sessions/conversations:1"
        sent = await http.post(f"{path}/turns", json={"text": question, "clientId": "ann"})
        assert sent.status_code == 202, sent.text

        async def status() -> str:
            turn = await http.get(f"{path}/turns/{sent.json()['turnId']}")
            return str(turn.json()["status"])

        async def ended() -> bool:
            return await status() not in ("pending", "active")

        await wait_until(ended, 15)
        assert await status() == "completed"
        messages = (await http.get(f"{path}/messages")).json()
    return str(messages)


async def stops(proc: Proc, within_s: float) -> None:
    """SIGTERM ends a process in an orderly way, before its manager would kill it."""
    proc.terminate()
    assert await proc.wait(within_s) == 0, proc.log
