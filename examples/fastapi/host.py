"""Gateway, worker and agent inside an application that has users, routes and a Redis of its own."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from agent_worker import Turn, Worker, working
from gateway import Gateway, HostIdentity, RequestInfo
from selfhost_transport.settings import NamespaceRule, RedisSettings, Settings

settings = Settings(
    redis=RedisSettings(url=os.environ["REDIS_URL"], prefix=os.environ.get("REDIS_PREFIX", "example")),
    namespaces=(NamespaceRule(id="notes", agent="assistant"),),
)
USERS = {"session-of-ann": "ann", "session-of-bob": "bob"}  # your own sessions


async def identify(request: RequestInfo) -> HostIdentity | None:
    """Who asks, by the application's own means; each user has the conversations below their name."""
    user = USERS.get(request.token or "")
    return HostIdentity(client_id=user, capability={f"notes:{user}": ["*"]}) if user else None


gateway = Gateway(settings, identify)
worker = Worker(settings)


@worker.agent("assistant")
async def assistant(turn: Turn) -> AsyncIterator[str]:
    """Says slowly what it was asked."""
    for word in (await turn.text()).split():
        yield f"{word} "
        await asyncio.sleep(0.1)  # a model's pace


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Gateway and worker live as long as the application."""
    async with gateway.lifespan(), working(worker):
        yield


app = FastAPI(lifespan=lifespan)
app.mount("/realtime", gateway.app())


@app.get("/hello")
async def hello() -> str:
    """A route of the application's own."""
    return "hello"
