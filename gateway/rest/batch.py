"""Batch publish: several channels in one request, each with its own result (protocol section 9.2)."""

from __future__ import annotations

from typing import Any

from gateway.auth.authenticator import Credential
from gateway.http_format import Reply
from gateway.rest.channels import Channels
from selfhost_transport.errors import BadRequest, InvalidChannelName, TransportError
from selfhost_transport.wire.channel import parse_channel
from selfhost_transport.wire.codes import Code, error_info
from selfhost_transport.wire.error_headers import error_headers

MAX_SPECS = 100
OLD_VERSION = "2"


async def publish_batch(channels: Channels, credential: Credential, body: Any, version: str) -> Reply:
    """Publish each spec to each of its channels. A failing channel is an item error, never a failed request.

    Clients of `version` 2 of the protocol expect a flat list, and a failed request where a channel failed.
    """
    specs = body if isinstance(body, list) else [body]
    if len(specs) > MAX_SPECS:
        raise BadRequest(f"a batch has at most {MAX_SPECS} specs")
    answers = [await _publish(channels, credential, spec) for spec in specs]
    if version == OLD_VERSION:
        return _flat([result for answer in answers for result in answer["results"]])
    return Reply(answers if isinstance(body, list) else answers[0], status=201)


def _flat(results: list[dict[str, Any]]) -> Reply:
    if not any("error" in result for result in results):
        return Reply(results, status=201)
    error = error_info(Code.BATCH_FAILED)
    body = {"error": error.to_wire(), "batchResponse": results}
    return Reply(body, status=400, headers=error_headers(error))


async def _publish(channels: Channels, credential: Credential, spec: Any) -> dict[str, Any]:
    if not isinstance(spec, dict) or "channels" not in spec or "messages" not in spec:
        raise BadRequest("a batch spec has channels and messages", code=Code.INVALID_BODY)
    names = spec["channels"] if isinstance(spec["channels"], list) else [spec["channels"]]
    if not all(isinstance(name, str) for name in names):
        raise BadRequest("the channels of a batch spec are names", code=Code.INVALID_BODY)
    results: list[dict[str, Any]] = []
    for name in names:
        try:
            ref = parse_channel(name)
            if ref.filter is not None:
                raise InvalidChannelName("a channel with a filter is for subscribing only")
            session = ref.name
            results.append(await channels.store(credential, session, spec["messages"]))
        except TransportError as error:
            results.append({"channel": name, "error": error.info.to_wire()})
    failures = sum("error" in result for result in results)
    return {"successCount": len(results) - failures, "failureCount": failures, "results": results}
