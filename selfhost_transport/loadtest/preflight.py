"""Before a run: is there a gateway, does it take the key, does an agent answer, and may it be loaded at no cost?"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import httpx

from selfhost_transport.errors import ConnectionFailed, InvalidArgument, TransportError, Unauthorized
from selfhost_transport.loadtest.plan import Load, LocalOptions, Scenario, Target

_TIMEOUT_S = 10.0
_ASK = "give --yes if that is meant"


def check_local(options: LocalOptions, *, yes: bool) -> None:
    """Raises InvalidArgument for agents of one's own with nothing between them and a provider."""
    if not options.free_models and not yes:
        raise InvalidArgument(
            f"the agents of {options.agent} may call a model that costs money: give --fake-provider to put one in its place; or "
            f"{_ASK}"
        )


def check_target(target: Target, load: Load, *, yes: bool) -> None:
    """Ask every gateway about every namespace.

    Raises ConnectionFailed, Unauthorized, InvalidArgument: one line that says what is wrong, before anything is sent.
    """
    with httpx.Client(headers=target.headers, timeout=_TIMEOUT_S) as http:
        for number in range(len(target.urls)):
            for namespace in load.namespaces:
                about = _ask(http, target.http_url(number), namespace)
                if load.scenario is not Scenario.IDLE:
                    _check_agent(about, namespace, yes=yes)


def _check_agent(about: dict[str, Any], namespace: str, *, yes: bool) -> None:
    agent = about.get("agent")
    if not agent:
        raise InvalidArgument(
            f"no agent answers in the namespace {namespace!r}: bind one to it in the gateway's configuration "
            "([[namespaces]]), or name another one with --namespace"
        )
    if not about.get("workers"):
        raise InvalidArgument(
            f"no worker serves the agent {agent!r}, which answers in the namespace {namespace!r}: start one with "
            "`selfhost-transport worker MODULE:OBJECT`"
        )
    if not about.get("freeModels") and not yes:
        raise InvalidArgument(
            f"the agent {agent!r}, which answers in the namespace {namespace!r}, may call a model that costs money: {_ASK}, or "
            "set free_models for its workers if their models cost nothing"
        )


def _ask(http: httpx.Client, url: str, namespace: str) -> dict[str, Any]:
    parts = urlsplit(url)
    where = f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
    try:
        answer = http.get(f"{url}/v1/me", params={"session": f"{namespace}:loadtest"})
    except httpx.HTTPError as error:
        raise ConnectionFailed(f"cannot connect to {where}: {error or type(error).__name__}") from error
    try:
        body = answer.json()
    except ValueError:
        body = None
    is_typed = isinstance(body, dict) and (answer.is_success or isinstance(body.get("error"), dict))
    # A key that is not known is a 404 as well; without one a gateway asks for it.
    is_elsewhere = answer.status_code == 404 and httpx.get(answer.url, timeout=_TIMEOUT_S).status_code == 404
    if not is_typed or is_elsewhere:
        raise ConnectionFailed(
            f"what answers at {url} is no gateway of this service (status {answer.status_code} for {answer.url.path})"
        )
    if answer.is_success:
        return dict(body)
    refusal = body["error"]
    kind = Unauthorized if answer.status_code in (401, 404) else TransportError
    raise kind(
        f"the gateway at {where} refuses the credentials: {refusal.get('message')}", code=refusal.get("code")
    )
