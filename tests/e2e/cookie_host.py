"""An application that carries the gateway below a path and knows its users by a cookie."""

from __future__ import annotations

from tests.e2e.applications import serve
from tests.processes import Stack

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
    return (await serve(stack, HOST, "/chat/readyz", ALLOWED=allowed))[1]
