"""An application that carries the gateway below a path and knows its users by a cookie."""

from __future__ import annotations

import sys

import httpx

from tests.machine import free_port
from tests.processes import Stack, wait_until

HOST = """
import os
from contextlib import asynccontextmanager

from fastapi import FastAPI

from gateway import Gateway, HostIdentity, RequestInfo
from selfhost_transport.settings import GatewaySettings, NamespaceRule, RedisSettings, Settings

settings = Settings(
    redis=RedisSettings(url=os.environ["REDIS_URL"], prefix=os.environ["REDIS_PREFIX"]),
    gateway=GatewaySettings(allowed_origins=(os.environ["ALLOWED"],)),
    namespaces=(NamespaceRule(id="*", agent="assistant"),),
)


async def identify(request: RequestInfo) -> HostIdentity | None:
    cookies = request.headers.get("cookie", "").split("; ")
    return HostIdentity(client_id="ann", capability={"bound:*": ["*"]}) if "session=of-ann" in cookies else None


gateway = Gateway(settings, identify)


@asynccontextmanager
async def lifespan(app: FastAPI):
    async with gateway.lifespan():
        yield


app = FastAPI(lifespan=lifespan)
app.mount("/chat", gateway.app())
"""


async def hosted(stack: Stack, allowed: str) -> str:
    """The port of such an application, once it answers."""
    (stack.folder / "host.py").write_text(HOST)
    port = str(free_port())
    environment = {"REDIS_URL": stack.redis_url, "REDIS_PREFIX": stack.redis_prefix, "ALLOWED": allowed}
    proc = await stack.run(
        sys.executable, "-m", "uvicorn", "host:app", "--app-dir", str(stack.folder), "--port", port, env=environment
    )  # fmt: skip

    async def answers() -> bool:
        assert proc.returncode is None, proc.log
        try:
            async with httpx.AsyncClient() as http:
                return (await http.get(f"http://127.0.0.1:{port}/chat/readyz")).status_code == 200
        except httpx.TransportError:
            return False

    await wait_until(answers, 20, "the application answers")
    return port
