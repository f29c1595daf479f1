"""The Helm chart: what it renders is valid, fits together, and its containers run as real processes.

What is rendered is kept beside this file, since not every machine has `helm`; it carries the digest of the chart.
"""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path
from typing import Any

import httpx
import kubernetes_validate
import pytest
import yaml

from scripts.render_chart import CHART, KUBERNETES, RENDERED, head, render, variants
from tests.certificates import Authority
from tests.deploy.running import DEPLOY, ROOT, Host, answer, interpolated, stops
from tests.processes import Stack

Manifest = dict[str, Any]
# Of the Prometheus operator: no schema of Kubernetes' own.
CUSTOM = {"ServiceMonitor", "PodMonitor"}


def _rendered(name: str) -> list[Manifest]:
    return [one for one in yaml.safe_load_all((RENDERED / f"{name}.yaml").read_text()) if one]


def _one(manifests: list[Manifest], kind: str, component: str) -> Manifest:
    (found,) = (
        one
        for one in manifests
        if one["kind"] == kind and one["metadata"]["labels"]["app.kubernetes.io/component"] == component
    )
    return found


def _pod(manifests: list[Manifest], component: str) -> tuple[Manifest, Manifest]:
    """The spec of a pod, and its container."""
    spec = _one(manifests, "Deployment", component)["spec"]["template"]["spec"]
    return spec, spec["containers"][0]


@pytest.mark.parametrize("name", variants())
def test_what_is_rendered_is_that_of_this_chart(name: str) -> None:
    text = (RENDERED / f"{name}.yaml").read_text()
    assert text.startswith(head()), "the chart has changed: run scripts/render_chart.py, which needs helm"
    if shutil.which("helm"):
        assert text == head() + render(variants()[name])


@pytest.mark.parametrize("name", variants())
def test_kubernetes_knows_every_field(name: str) -> None:
    kinds = set()
    for manifest in _rendered(name):
        kinds.add(manifest["kind"])
        if manifest["kind"] not in CUSTOM:
            kubernetes_validate.validate(manifest, KUBERNETES.rpartition(".")[0], strict=True)
    assert {"Deployment", "Service", "PodDisruptionBudget", "Secret", "ConfigMap"} <= kinds
    if name == "production":
        assert {"HorizontalPodAutoscaler", "Ingress", *CUSTOM} <= kinds and "StatefulSet" not in kinds


@pytest.mark.parametrize("name", variants())
def test_names_lead_to_what_is_there(name: str) -> None:
    """Secrets, configuration, ports and labels that a manifest refers to."""
    manifests = _rendered(name)
    secret, config = _one(manifests, "Secret", "config"), _one(manifests, "ConfigMap", "config")
    tomllib.loads(config["data"]["config.toml"])
    for component in ("gateway", "worker"):
        spec, container = _pod(manifests, component)
        for variable in container["env"]:
            if reference := variable.get("valueFrom", {}).get("secretKeyRef"):
                assert reference["name"] == secret["metadata"]["name"]
                assert reference["key"] in secret["stringData"]
        volumes = {volume["name"] for volume in spec["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes
        labels = _one(manifests, "Deployment", component)["spec"]["template"]["metadata"]["labels"]
        for kind in ("Deployment", "PodDisruptionBudget"):
            wanted = _one(manifests, kind, component)["spec"]["selector"]["matchLabels"]
            assert wanted.items() <= labels.items(), (kind, component)
        security = container["securityContext"]
        assert security["readOnlyRootFilesystem"] and security["capabilities"] == {"drop": ["ALL"]}
        assert spec["securityContext"]["runAsNonRoot"] and not spec["automountServiceAccountToken"]
    service = _one(manifests, "Service", "gateway")["spec"]
    assert service["selector"].items() <= labels.items() | {("app.kubernetes.io/component", "gateway")}
    assert service["ports"][0]["targetPort"] == _pod(manifests, "gateway")[1]["ports"][0]["name"]
    for kind, component in (("ServiceMonitor", "gateway"), ("PodMonitor", "worker")):
        for monitor in (one for one in manifests if one["kind"] == kind):
            (endpoint,) = monitor["spec"].get("endpoints") or monitor["spec"]["podMetricsEndpoints"]
            assert endpoint["port"] in {p["name"] for p in _pod(manifests, component)[1]["ports"]}
            for reference in endpoint.get("basicAuth", {}).values():
                assert reference["key"] in secret["stringData"]


def _environment(container: Manifest, secret: Manifest) -> dict[str, str]:
    values: dict[str, str] = {}
    for variable in container["env"]:
        reference = variable.get("valueFrom", {}).get("secretKeyRef")
        text = variable["value"] if reference is None else secret["stringData"][reference["key"]]
        for name, value in values.items():
            text = text.replace(f"$({name})", value)
        values[variable["name"]] = text
    return values


@pytest.mark.parametrize("name", variants())
async def test_the_containers_answer_a_turn_their_probes_and_the_stop(
    stack: Stack, redis_url: str, tmp_path: Path, name: str
) -> None:
    manifests = _rendered(name)
    secret = _one(manifests, "Secret", "config")
    (tmp_path / "config.toml").write_text(_one(manifests, "ConfigMap", "config")["data"]["config.toml"])
    authority = Authority(tmp_path)
    (tmp_path / "tls").mkdir()
    for file, content in zip(("tls.crt", "tls.key"), authority.certificate(), strict=True):
        (tmp_path / "tls" / file).write_bytes(content)
    running = {}
    for component in ("gateway", "worker"):
        container = _pod(manifests, component)[1]
        env = _environment(container, secret)
        moved = {
            env["SELFHOST_TRANSPORT_REDIS"]: redis_url,
            "/etc/selfhost-transport": str(tmp_path),
            "0.0.0.0": "127.0.0.1",
        }
        running[component] = await Host(stack, moved).start(container["args"], env, DEPLOY / "agent")
    url = running["gateway"].url
    is_tls = url.startswith("https://")
    assert is_tls == (name == "production")
    gateway = _pod(manifests, "gateway")[1]
    async with httpx.AsyncClient(base_url=url, verify=False) as http:  # as the kubelet does
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert gateway[probe]["httpGet"]["scheme"] == ("HTTPS" if is_tls else "HTTP")
            assert (await http.get(gateway[probe]["httpGet"]["path"])).status_code == 200
    (metrics,) = [line for line in running["worker"].lines if line.startswith("metrics ")]
    probe = _pod(manifests, "worker")[1]["readinessProbe"]["httpGet"]
    async with httpx.AsyncClient() as http:
        assert metrics.endswith(probe["path"]) and (await http.get(metrics.split()[1])).status_code == 200
    shown = await answer(url, ("app.web", "choose-another-one"), "script: say=one two", ca=authority.ca_file)
    assert ("That question has 3 words." if name == "production" else "one two") in shown
    for component in ("worker", "gateway"):
        grace = _pod(manifests, component)[0]["terminationGracePeriodSeconds"]
        await stops(running[component], float(grace))


def test_workers_scale_by_an_age_that_gateways_report() -> None:
    manifests = _rendered("production")
    scaler = _one(manifests, "HorizontalPodAutoscaler", "worker")["spec"]
    worker = _one(manifests, "Deployment", "worker")
    assert "replicas" not in worker["spec"], "the autoscaler's own"
    assert scaler["scaleTargetRef"]["name"] == worker["metadata"]["name"]
    metric = scaler["metrics"][0]["external"]["metric"]
    assert metric["name"] in (ROOT / "docs" / "operations.md").read_text()
    assert metric["name"] in (ROOT / "docs" / "kubernetes.md").read_text()


def test_the_bundled_redis_is_that_of_the_other_deployments() -> None:
    for name in ("redis.conf", "users.acl"):
        assert (CHART / "files" / name).read_text() == (DEPLOY / "redis" / name).read_text()
    manifests = _rendered("trial")
    (container,) = _one(manifests, "StatefulSet", "redis")["spec"]["template"]["spec"]["containers"]
    compose = yaml.safe_load((DEPLOY / "docker-compose.yml").read_text())["services"]["redis"]["command"]
    assert container["command"][:2] == compose[:2]
    same = interpolated(compose[2].replace("$$", "$$$$"), {})
    assert container["command"][2] == same.replace("$$", "$")


def test_the_chart_has_the_version_of_the_package() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == version
