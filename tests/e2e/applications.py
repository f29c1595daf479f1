"""Applications that have a gateway inside, as processes under uvicorn."""

from __future__ import annotations

import sys

import httpx

from tests.machine import free_port
from tests.processes import Proc, Stack, wait_until


async def serve(stack: Stack, source: str, path: str, *options: str, **environment: str) -> tuple[Proc, str]:
    """The process and the port of the application `app` in a source text, once it answers a GET of `path` with 200."""
    (stack.folder / "host.py").write_text(source)
    port = str(free_port())
    shared = {"REDIS_URL": stack.redis_url, "REDIS_PREFIX": stack.redis_prefix}
    proc = await stack.run(
        sys.executable, "-m", "uvicorn", "host:app", "--app-dir", str(stack.folder), "--port", port, *options,
        env={**shared, **environment},
    )  # fmt: skip

    async def answers() -> bool:
        assert proc.returncode is None, proc.log
        try:
            async with httpx.AsyncClient() as http:
                return (await http.get(f"http://127.0.0.1:{port}{path}")).status_code == 200
        except httpx.TransportError:
            return False

    await wait_until(answers, 60, "the application answers")
    return proc, port
