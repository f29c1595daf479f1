"""`doctor`: checks the setup of Redis, and shows the rule of a channel (OPS-8, RUL-3)."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from selfhost_transport import accelerator
from selfhost_transport.commands.channel_rights import channel_rights
from selfhost_transport.errors import TransportError
from selfhost_transport.redis_io.preflight import check_way_in
from selfhost_transport.redis_io.server_version import check_server
from selfhost_transport.settings import Settings
from selfhost_transport.settings_values import redact_url
from selfhost_transport.store import scripts
from selfhost_transport.store.stores import Stores
from selfhost_transport.wire.message import Message


class Verdict(StrEnum):
    """What a check found. A `fail` breaks a promise; a `warn` is a choice that has a price."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report: what was checked, and what to do about it."""

    verdict: Verdict
    subject: str
    detail: str


def run_doctor(settings: Settings, channel: str | None) -> bool:
    """Print the report; whether nothing failed."""
    findings = [examine_accelerator(), *asyncio.run(_examine(settings))]
    if channel is not None:
        findings += explain_channel(settings, channel)
    for finding in findings:
        print(f"{finding.verdict:4}  {finding.subject:12}  {finding.detail}")
    return all(finding.verdict is not Verdict.FAIL for finding in findings)


def examine_accelerator() -> Finding:
    """Whether the path of every token is compiled; without a compiler at hand a warning would be of no use."""
    return Finding(Verdict.OK, "accelerator", accelerator.STATUS)


def examine_server(info: Mapping[str, str], durability: str = "everysec") -> list[Finding]:
    """Facts from INFO: version, eviction, persistence, role; judged by what the deployment promises."""
    return [_version(info), _eviction(info), _persistence(info, durability), _role(info, durability)]


def explain_channel(settings: Settings, channel: str) -> list[Finding]:
    """Which rule holds for a channel, and what each kind of credential permits on it (RUL-3)."""
    rights = channel_rights(settings, channel)
    found = [Finding(Verdict.OK, "capability", f"{channel}: {line}") for line in rights]
    if not found:
        locked_out = (
            f"{channel}: no client can connect: configure [[keys]], [[issuers]] or [[trusted_proxies]]; or is it `dev`"
            " that is asked about: --dev"
        )
        found = [Finding(Verdict.WARN, "capability", locked_out)]
    return [_rule_of(settings, channel), *found]


async def _examine(settings: Settings) -> list[Finding]:
    where = redact_url(settings.redis.url)
    try:
        await check_way_in(settings.redis.url)
        stores = Stores.build(settings)
    except TransportError as error:
        return [Finding(Verdict.FAIL, "connection", f"{where}: {error}")]
    try:
        info = await stores.redis.info()
        reached = Finding(Verdict.OK, "connection", where)
        return [reached, *examine_server(info, settings.redis.durability), await _rights(stores)]
    except TransportError as error:
        return [Finding(Verdict.FAIL, "connection", f"{where}: {error}")]
    finally:
        await stores.close()


def _version(info: Mapping[str, str]) -> Finding:
    try:
        check_server(info)
    except TransportError as error:
        return Finding(Verdict.FAIL, "version", str(error))
    return Finding(Verdict.OK, "version", info["redis_version"])


def _eviction(info: Mapping[str, str]) -> Finding:
    policy, limit = info.get("maxmemory_policy", "unknown"), info.get("maxmemory", "0")
    if policy == "noeviction":
        size = "no limit" if limit == "0" else f"limit {info.get('maxmemory_human', limit)}"
        return Finding(Verdict.OK, "memory", f"maxmemory-policy noeviction, {size}")
    return Finding(
        Verdict.FAIL,
        "memory",
        f"maxmemory-policy {policy} lets Redis evict parts of sessions when memory is short: set it to noeviction",
    )


def _persistence(info: Mapping[str, str], durability: str) -> Finding:
    if durability == "none":
        return Finding(Verdict.OK, "persistence", "durability none: a restart of Redis may lose everything")
    if info.get("aof_enabled") == "1":
        return Finding(Verdict.OK, "persistence", "append-only file")
    return Finding(
        Verdict.FAIL,
        "persistence",
        "no append-only file: a restart of Redis loses acknowledged writes: set appendonly to yes",
    )


def _role(info: Mapping[str, str], durability: str) -> Finding:
    if info.get("role") == "master":
        replicas = info.get("connected_slaves", "0")
        # INFO states the good replicas only where some are asked for.
        needed = durability.removeprefix("wait:") if durability.startswith("wait:") else "0"
        if int(replicas) < int(needed):
            return Finding(
                Verdict.FAIL,
                "role",
                f"primary with {replicas} replica(s): with durability {durability} no write is acknowledged",
            )
        if replicas != "0" and needed == "0" and "min_slaves_good_slaves" not in info:
            return Finding(
                Verdict.WARN,
                "role",
                f"primary with {replicas} replica(s), and writes are acknowledged before any replica has them: a fail-over loses "
                "the last ones. Set min-replicas-to-write to 1 (docs/deployment.md)",
            )
        return Finding(Verdict.OK, "role", f"primary with {replicas} replica(s)")
    primary = f"{info.get('master_host', '?')}:{info.get('master_port', '?')}"
    return Finding(
        Verdict.FAIL, "role", f"this is a replica, which cannot be written to; its primary is {primary}"
    )


async def _rights(stores: Stores) -> Finding:
    """Writes a session and removes it, as the processes would with these credentials."""
    redis, keys = stores.redis, stores.keys
    name = f"doctor-{secrets.token_hex(8)}"
    base = keys.base_of(name)
    try:
        await redis.command("SCRIPT", "LOAD", scripts.load("publish").source)
        await stores.sessions.publish(name, [Message(name="doctor", data="")])
        await redis.command("DEL", *(f"{base}{letter}:{name}" for letter in "splhg"))
        await redis.command("ZREM", f"{base}retention", name)
    except TransportError as error:
        return Finding(Verdict.FAIL, "rights", str(error))
    return Finding(Verdict.OK, "rights", f"may run scripts and write keys under {keys.prefix}:")


def _rule_of(settings: Settings, channel: str) -> Finding:
    rule = settings.namespace_for(channel)
    if rule.agent is None:
        return Finding(
            Verdict.OK, "namespace", f"{channel}: rule {rule.id}: plain pub/sub, no agent is bound"
        )
    limits = f"max_active={rule.max_active}, queue_cap={rule.queue_cap}, retention={rule.retention}"
    return Finding(
        Verdict.OK,
        "namespace",
        f"{channel}: rule {rule.id}: agent {rule.agent}, policy {rule.policy}, {limits}",
    )
