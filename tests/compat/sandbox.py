"""Applications on demand, so that the SDKs' own test suites can be run: `python -m tests.compat.sandbox [PORT]`.

With `ABLY_LOCAL_SANDBOX_URL` set to its address the suites provision every application here (protocol section 15). Each
application is a gateway process of its own, with a Redis prefix of its own; the answer says where it listens. This is a
fixture: the product itself makes no keys.
"""

from __future__ import annotations

import json
import secrets
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Response
from pydantic import BaseModel, ConfigDict

from selfhost_transport.redis_io.embedded import EmbeddedRedis
from selfhost_transport.wire.actions import Flag
from tests.gateway.raw import ACK, CONNECTED, client
from tests.processes import Proc, Stack

_EVERYTHING = '{"*":["*"]}'


class KeySpec(BaseModel):
    """A wanted key; fields that are unknown here are repeated in the answer."""

    model_config = ConfigDict(extra="allow")
    capability: str | dict[str, list[str]] = _EVERYTHING
    revocableTokens: bool = False  # noqa: N815 - as the suites send it


class ChannelSpec(BaseModel):
    """A channel with members that are always there."""

    name: str
    presence: list[dict[str, Any]] = []


class AppSpec(BaseModel):
    """The body of POST /apps."""

    model_config = ConfigDict(extra="allow")
    keys: list[KeySpec] = [KeySpec()]
    namespaces: list[dict[str, Any]] = []
    channels: list[ChannelSpec] = []


@dataclass(slots=True)
class App:
    """A running application."""

    gateway: Proc
    # Keeps the members of its channels present.
    members: AsyncExitStack


class Sandbox:
    """The applications of one test run, on one Redis."""

    def __init__(self, redis_url: str, folder: Path) -> None:
        self._redis_url = redis_url
        self._folder = folder
        self._apps: dict[str, App] = {}

    async def provision(self, spec: AppSpec) -> dict[str, Any]:
        """Start an application and describe it. Every namespace is persisted and mutable here."""
        app_id = secrets.token_hex(4)
        keys = [_key(app_id, number, wanted) for number, wanted in enumerate(spec.keys)]
        folder = self._folder / app_id
        folder.mkdir()
        stack = Stack(self._redis_url, f"sandbox-{app_id}", folder)
        gateway = await stack.gateway(config="\n".join(_config(key) for key in keys))
        members = AsyncExitStack()
        members.push_async_callback(stack.close)
        self._apps[app_id] = App(gateway, members)
        for channel in spec.channels:
            await self._enter(app_id, keys[0]["keyStr"], channel)
        asked = spec.model_dump()
        place = {"endpoint": "127.0.0.1", "port": gateway.port, "tls": False}
        return {**asked, "appId": app_id, "accountId": "sandbox", "keys": keys, **place}

    async def remove(self, app_id: str) -> None:
        """End an application; one that is gone is no error."""
        app = self._apps.pop(app_id, None)
        if app is not None:
            await app.members.aclose()

    async def close(self) -> None:
        """End all."""
        for app_id in list(self._apps):
            await self.remove(app_id)

    async def _enter(self, app_id: str, key: str, channel: ChannelSpec) -> None:
        app = self._apps[app_id]
        # No one reads what this client is sent, so it asks for next to nothing.
        raw = await app.members.enter_async_context(client(app.gateway.url, key=key, heartbeats="false"))
        assert (await raw.next())["action"] == CONNECTED
        await raw.attach(channel.name, flags=Flag.PRESENCE.value)
        entering = [{**member, "action": 2} for member in channel.presence]
        await raw.send({"action": 14, "channel": channel.name, "msgSerial": 0, "presence": entering})
        assert (await raw.answer())["action"] == ACK


def _key(app_id: str, number: int, wanted: KeySpec) -> dict[str, Any]:
    text = wanted.capability if isinstance(wanted.capability, str) else json.dumps(wanted.capability)
    # Secrets must not contain dots or colons.
    name, secret = f"{app_id}.key{number}", secrets.token_urlsafe(24)
    identity = {"id": f"key{number}", "keyName": name, "keySecret": secret, "keyStr": f"{name}:{secret}"}
    return {**wanted.model_dump(), **identity, "capability": text}


def _config(key: dict[str, Any]) -> str:
    rights = ", ".join(
        f"{json.dumps(resource)} = {json.dumps(operations)}"
        for resource, operations in json.loads(key["capability"]).items()
    )
    return (
        f'[[keys]]\nname = "{key["keyName"]}"\nsecret = "{key["keySecret"]}"\n'
        f"capability = {{ {rights} }}\nrevocable_tokens = {str(key['revocableTokens']).lower()}\n"
    )


def create_sandbox(sandbox: Sandbox) -> FastAPI:
    """The calls that the suites make."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await sandbox.close()

    app = FastAPI(lifespan=lifespan)

    @app.post("/apps", status_code=201)
    async def provision(spec: AppSpec) -> dict[str, Any]:
        return await sandbox.provision(spec)

    @app.delete("/apps/{app_id}", status_code=204)
    async def remove(app_id: str) -> None:
        await sandbox.remove(app_id)

    @app.post("/stats")
    async def stats() -> Response:
        return Response(status_code=201)

    return app


def main(port: int) -> None:
    """Serve until interrupted."""
    with EmbeddedRedis() as redis, tempfile.TemporaryDirectory() as folder:
        app = create_sandbox(Sandbox(redis.url, Path(folder)))
        uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 8090)
