"""What the chart's objects promise: safe pods, orderly ends, stable selectors, and exactly what was asked for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import pytest
import yaml

from tests.chart.helm import (
    CHART,
    NAMESPACE,
    NEEDED,
    SCENARIOS,
    SHARED,
    container,
    environment,
    needs_helm,
    objects,
    of_kind,
    parsed,
    pod_spec,
    render,
    scenario,
    the,
)

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = needs_helm

FILES: Final = [pytest.param(path, id=path.stem) for path in SCENARIOS]
LONG_RELEASE: Final = "a-release-with-a-name-as-long-as-helm-lets-one-be-named"
DIGEST: Final = f"sha256:{'7d' * 32}"


def own_containers(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the containers of a pod that are the chart's own."""
    found = [*spec.get("initContainers", []), *spec["containers"]]
    return [part for part in found if part["name"] in {"gateway", "emulator", "test"}]


def pods(path: Path) -> list[dict[str, Any]]:
    """Return the specifications of all pods of a scenario: the gateway's, and those of `helm test`."""
    found = objects(scenario=path)
    return [
        *(each["spec"]["template"]["spec"] for each in found if each["kind"] == "Deployment"),
        *(each["spec"] for each in found if each["kind"] == "Pod"),
    ]


@pytest.mark.parametrize("path", FILES)
def test_pods_fit_the_standard_restricted(path: Path) -> None:
    """No root, no privilege, no capability, seccomp, a root that cannot be written to, and no token of Kubernetes's."""
    for spec in pods(path):
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 10_000
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        assert not [volume for volume in spec.get("volumes", []) if "hostPath" in volume]
        for part in own_containers(spec):
            assert part["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


@pytest.mark.parametrize("path", FILES)
def test_images_are_pinned(path: Path) -> None:
    """Every image has a version or a digest, and none is whatever is the latest."""
    for spec in pods(path):
        for part in [*spec.get("initContainers", []), *spec["containers"]]:
            name, _, version = part["image"].rpartition(":")
            assert name
            assert version not in {"", "latest"}


def test_the_image_is_put_together_of_its_parts() -> None:
    """Registry, repository, and the digest where there is one, else the tag, else the chart's release."""
    assert container(*NEEDED)["image"] == "fal-gateway:0.1.0"
    named = (*NEEDED, "image.registry=registry.example:5000", "image.repository=a/b", "image.tag=1.2.3")
    assert container(*named)["image"] == "registry.example:5000/a/b:1.2.3"
    assert container(*named, f"image.digest={DIGEST}")["image"] == f"registry.example:5000/a/b@{DIGEST}"


def test_a_pod_ends_in_order() -> None:
    """Kubernetes takes the pod out of its Services, waits, asks it to drain, and lets it: in time that suffices."""
    spec = pod_spec(*NEEDED)
    found = environment(*NEEDED)
    pause = container(*NEEDED)["lifecycle"]["preStop"]["sleep"]["seconds"]
    needed = pause + float(found["FALGW_SHUTDOWN_DELAY"]) + float(found["FALGW_DRAIN_TIMEOUT"]) + 5
    assert spec["terminationGracePeriodSeconds"] >= needed
    assert the("Deployment", *NEEDED)["spec"]["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1},
    }
    assert "lifecycle" not in container(scenario=scenario("minimal"))


def test_probes_ask_the_ops_listener() -> None:
    """Readiness asks whether calls are taken; liveness only whether the process answers."""
    asked = {name: container(*NEEDED)[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert asked == {
        "startup": {"path": "/livez", "port": "ops"},
        "liveness": {"path": "/livez", "port": "ops"},
        "readiness": {"path": "/readyz", "port": "ops"},
    }


@pytest.mark.parametrize("name", ["default", "settings"])
def test_services_lead_to_the_ports_that_are_listened_on(name: str) -> None:
    """Callers reach the data listener alone, and operators the other one by a Service of its own."""
    found = environment(scenario=scenario(name))
    ports = {port["name"]: port["containerPort"] for port in container(scenario=scenario(name))["ports"]}
    assert ports == {"http": int(found["FALGW_PORT"]), "ops": int(found["FALGW_OPS_PORT"])}
    targets = {
        service["metadata"]["name"]: [port["targetPort"] for port in service["spec"]["ports"]]
        for service in of_kind("Service", scenario=scenario(name))
    }
    assert targets == {"gw-fal-gateway": ["http"], "gw-fal-gateway-ops": ["ops"]}


@pytest.mark.parametrize("path", FILES)
def test_selectors_select_the_gateway_and_nothing_else(path: Path) -> None:
    """Services, budget and policy mean the gateway's pods; the pods of `helm test` are none of them."""
    found = objects(scenario=path)
    deployment = next(each for each in found if each["kind"] == "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    selectors = [deployment["spec"]["selector"]["matchLabels"]]
    selectors += [each["spec"]["selector"] for each in found if each["kind"] == "Service"]
    selectors += [each["spec"]["selector"]["matchLabels"] for each in found if each["kind"] == "PodDisruptionBudget"]
    if any(each["kind"] == "NetworkPolicy" for each in found):
        selectors.append(policy(scenario=path)["spec"]["podSelector"]["matchLabels"])
    others = [each["metadata"]["labels"] for each in found if each["kind"] == "Pod"]
    for selector in selectors:
        assert selector.items() <= labels.items()
        assert not any(selector.items() <= other.items() for other in others)


def test_the_selector_of_the_deployment_never_changes() -> None:
    """Kubernetes refuses an upgrade that changes it: no value but the names has a part in it."""
    wanted = {
        "app.kubernetes.io/name": "fal-gateway",
        "app.kubernetes.io/instance": "gw",
        "app.kubernetes.io/component": "gateway",
    }
    for path in SCENARIOS:
        if path != scenario("placement"):  # which names everything itself
            assert the("Deployment", scenario=path)["spec"]["selector"]["matchLabels"] == wanted
    named = the("Deployment", *NEEDED, "podLabels.a=b", "commonLabels.c=d", "image.tag=v9")
    assert named["spec"]["selector"]["matchLabels"] == wanted


@pytest.mark.parametrize("release", [LONG_RELEASE[:53], "fal-gateway", "x"])
def test_names_fit_whatever_the_release_is_called(release: str) -> None:
    """Every name has at most 63 characters, as a Service's must, and no two objects of a kind share one."""
    for path in (scenario("monitoring"), scenario("replicas"), scenario("emulator")):
        found = objects(scenario=path, release=release)
        names = [(each["kind"], each["metadata"]["name"]) for each in found]
        assert len(set(names)) == len(names)
        assert max(len(name) for _, name in names) <= 63
        assert not [name for _, name in names if name.endswith("-") or "--" in name]
        values = [value for each in found for value in each["metadata"]["labels"].values()]
        assert max(len(str(value)) for value in values) <= 63


def pod_annotations(*sets: str) -> dict[str, str]:
    """Return the annotations of the gateway's pod."""
    return dict(the("Deployment", *sets)["spec"]["template"]["metadata"]["annotations"])


def test_a_changed_policy_starts_the_pods_anew() -> None:
    """The pod carries the policy's digest, and nothing else of it: other changes leave the digest alone."""
    first, second = (pod_annotations(*NEEDED, f"policy.teams[0].id={team}") for team in ("design", "research"))
    assert first["checksum/policy"] != second["checksum/policy"]
    third = pod_annotations(
        *NEEDED, "policy.teams[0].id=design", "service.port=81", "podDisruptionBudget.enabled=false"
    )
    assert first == third


def test_a_changed_policy_may_be_taken_up_in_place() -> None:
    """With `rolloutOnPolicyChange: false` the pod does not change, and the policy is mounted so that it is followed."""
    sets = (*NEEDED, "rolloutOnPolicyChange=false", "policy.teams[0].id=design")
    assert "checksum/policy" not in pod_annotations(*sets)
    [mount] = [mount for mount in container(*sets)["volumeMounts"] if mount["name"] == "policy"]
    assert "subPath" not in mount
    assert environment(*sets)["FALGW_POLICY"].startswith(mount["mountPath"] + "/")


def test_a_changed_address_starts_the_pods_anew() -> None:
    """A URL lies in a Secret, which a running pod would not notice: the pod carries its digest."""
    first, second = (pod_annotations(*NEEDED, f"redis.url=redis://{host}") for host in ("a", "b"))
    assert first["checksum/urls"] != second["checksum/urls"]


def test_addresses_lie_in_a_secret() -> None:
    """A password within a URL is in no object but a Secret."""
    text = render(scenario=scenario("replicas"))
    assert text.count("pass%2Fword") == 2
    secret = the("Secret", scenario=scenario("replicas"))
    assert secret["stringData"] == {
        "redis-url": "rediss://gateway:pass%2Fword@redis.example:6380/0",
        "database-url": "postgresql://gateway:pass%2Fword@db.example:5433/fal",
    }
    for name, key in (("FALGW_REDIS_URL", "redis-url"), ("FALGW_DATABASE_URL", "database-url")):
        reference = environment(scenario=scenario("replicas"))[name]["secretKeyRef"]
        assert reference == {"name": secret["metadata"]["name"], "key": key}


def test_replicas_belong_to_the_scaler() -> None:
    """Where something else scales, an upgrade must not set the number of pods back."""
    assert the("Deployment", *NEEDED)["spec"]["replicas"] == 1
    assert "replicas" not in the("Deployment", scenario=scenario("autoscaling"))["spec"]
    assert "replicas" not in the("Deployment", scenario=scenario("keda"))["spec"]


def test_the_scaler_goes_by_cpu_and_by_requests_under_way() -> None:
    """Both are asked, of each pod on the average."""
    metrics = the("HorizontalPodAutoscaler", scenario=scenario("autoscaling"))["spec"]["metrics"]
    assert [metric["type"] for metric in metrics] == ["ContainerResource", "Pods"]
    assert metrics[1]["pods"] == {
        "metric": {"name": "fal_gateway_inflight_requests"},
        "target": {"type": "AverageValue", "averageValue": "800"},
    }


def test_keda_asks_for_the_requests_of_this_release_alone() -> None:
    """Another release in the same Prometheus does not scale this one."""
    [trigger] = the("ScaledObject", scenario=scenario("keda"))["spec"]["triggers"]
    assert trigger["metadata"]["query"] == (
        f'sum(fal_gateway_inflight_requests{{namespace="{NAMESPACE}", pod=~"gw-fal-gateway-[a-z0-9]+-[a-z0-9]+"}})'
    )


def test_the_ledger_outlives_its_pod_where_asked_to() -> None:
    """With a claim the old pod is gone before the new one opens the file, and the claim outlives the release."""
    path = scenario("sqlite")
    claim = the("PersistentVolumeClaim", scenario=path)
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert the("Deployment", scenario=path)["spec"]["strategy"] == {"type": "Recreate"}
    [volume] = [volume for volume in pod_spec(scenario=path)["volumes"] if volume["name"] == "state"]
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert not of_kind("PersistentVolumeClaim", scenario=scenario("sqlite-existing-claim"))


@pytest.mark.parametrize("path", FILES)
def test_what_the_gateway_writes_is_on_a_volume(path: Path) -> None:
    """The root cannot be written to: the SQLite file and the journals that wait for PostgreSQL lie on a volume."""
    found = container(scenario=path)
    mounts = {mount["mountPath"]: mount["name"] for mount in found["volumeMounts"] if not mount.get("readOnly")}
    assert mounts == {"/var/lib/fal-gateway": "state", "/tmp": "tmp"}  # noqa: S108 (a mount in a pod)
    assert found["workingDir"] == "/var/lib/fal-gateway"


def test_the_notes_say_what_is_lost() -> None:
    """Who installs it without a database and without a volume reads that nothing is kept."""
    assert "NOTHING IS KEPT" in render(*NEEDED, notes=True)
    assert "NO POLICY" in render(*NEEDED, notes=True)
    assert "NOTHING IS KEPT" not in render(scenario=scenario("sqlite"), notes=True)
    assert "stays when this release is uninstalled" in render(scenario=scenario("sqlite"), notes=True)
    assert "NOTHING IS KEPT" not in render(scenario=scenario("postgresql"), notes=True)


def policy(*sets: str, scenario: Path | None = None) -> dict[str, Any]:
    """Return the NetworkPolicy of the gateway, not that of the pods of `helm test`."""
    found = of_kind("NetworkPolicy", *sets, scenario=scenario)
    return next(each for each in found if not each["metadata"]["name"].endswith("-test"))


def test_the_pods_of_helm_test_reach_the_gateway_and_no_one_else() -> None:
    """Also in a namespace that denies by default, and with nothing let in."""
    [spec] = [
        found["spec"]
        for found in of_kind("NetworkPolicy", *NEEDED, "networkPolicy.enabled=true")
        if found["metadata"]["name"] == "gw-fal-gateway-test"
    ]
    [pod, *_] = of_kind("Pod", *NEEDED)
    assert spec["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert spec["ingress"] == []
    assert spec["egress"][1] == {
        "to": [{"podSelector": {"matchLabels": the("Deployment", *NEEDED)["spec"]["selector"]["matchLabels"]}}]
    }


def allowed(rules: list[dict[str, Any]], direction: str) -> dict[tuple[str, Any], Any]:
    """Return whom each port of a NetworkPolicy's rules leads to, None for everybody."""
    return {(port["protocol"], port["port"]): rule.get(direction) for rule in rules for port in rule["ports"]}


def test_the_network_policy_lets_in_callers_and_scrapes() -> None:
    """Anybody may call, unless it is said who; only the monitoring and `helm test` may scrape."""
    tests = {"podSelector": {"matchLabels": {"app.kubernetes.io/component": "test"} | instance()}}
    spec = policy(*NEEDED, "networkPolicy.enabled=true")["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert allowed(spec["ingress"], "from") == {
        ("TCP", "http"): None,
        ("TCP", "ops"): [namespace("monitoring"), tests],
    }
    named = policy(scenario=scenario("network-policy"))["spec"]
    assert allowed(named["ingress"][:2], "from") == {
        ("TCP", "http"): [namespace("apps"), tests],
        ("TCP", "ops"): [namespace("observability"), tests],
    }


def test_the_network_policy_lets_out_what_is_needed() -> None:
    """Names, TLS to the internet but not the cloud's metadata, and Redis and the database where there are any."""
    plain = allowed(policy(*NEEDED, "networkPolicy.enabled=true")["spec"]["egress"], "to")
    assert set(plain) == {("UDP", 53), ("TCP", 53), ("TCP", 443)}
    assert plain["TCP", 443][0] == {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}}
    ports = set(allowed(policy(scenario=scenario("replicas"))["spec"]["egress"], "to"))
    assert ports - set(plain) == {("TCP", 6380), ("TCP", 5433)}
    named = allowed(policy(scenario=scenario("network-policy"))["spec"]["egress"], "to")
    assert named["TCP", 6390] == [{"podSelector": {"matchLabels": {"app": "redis"}}}]
    assert named["TCP", 5439] == [{"ipBlock": {"cidr": "10.1.2.3/32"}}]
    assert named["TCP", 4318] == [namespace("tracing")]


@pytest.mark.parametrize(
    ("url", "port"),
    [
        ("redis://redis.example", 6379),
        ("redis://u:p%40@redis.example:7000/1?x=a:1", 7000),
        ("rediss://[2001:db8::1]:7001", 7001),
        ("redis://[2001:db8::1]/0", 6379),
    ],
)
def test_the_network_policy_reads_the_port_off_the_url(url: str, port: int) -> None:
    """A Redis on another port is not cut off."""
    spec = policy(*NEEDED, "networkPolicy.enabled=true", f"redis.url={url}")["spec"]
    assert ("TCP", port) in allowed(spec["egress"], "to")


def test_the_route_has_no_time_limit() -> None:
    """A gateway's default of 15 s would cut answers off."""
    [rule] = the("HTTPRoute", scenario=scenario("gateway-api"))["spec"]["rules"]
    assert rule["timeouts"] == {"request": "0s"}
    assert rule["matches"] == [{"path": {"type": "PathPrefix", "value": "/api/fal"}}]
    assert rule["backendRefs"] == [{"name": "gw-fal-gateway", "port": 80}]


def test_the_monitor_selects_the_ops_service_alone() -> None:
    """One endpoint a pod: a selector that also fits the Service for callers would scrape it in vain."""
    selector = the("ServiceMonitor", scenario=scenario("monitoring"))["spec"]["selector"]["matchLabels"]
    services = of_kind("Service", scenario=scenario("monitoring"))
    assert [
        service["metadata"]["name"] for service in services if selector.items() <= service["metadata"]["labels"].items()
    ] == ["gw-fal-gateway-ops"]
    labels = the("Deployment", scenario=scenario("pod-monitor"))["spec"]["template"]["metadata"]["labels"]
    selected = the("PodMonitor", scenario=scenario("pod-monitor"))["spec"]["selector"]["matchLabels"]
    assert selected.items() <= labels.items()


def test_the_rules_are_the_file_that_promtool_tests() -> None:
    """Not a word is changed, and nothing that looks like a template is taken for one, but for the base of runbooks."""
    written = yaml.safe_load((CHART / "files" / "rules.yaml").read_text(encoding="utf-8"))
    assert the("PrometheusRule", *NEEDED, "prometheusRule.enabled=true")["spec"] == written
    based = the("PrometheusRule", scenario=scenario("monitoring"))["spec"]
    base = "https://git.example.com/platform/fal-gateway/blob/main/"
    for group in written["groups"]:
        for rule in group["rules"]:
            if "alert" in rule:
                rule["annotations"]["runbook_url"] = base + rule["annotations"]["runbook_url"]
    assert based == written


def test_the_dashboards_are_the_files() -> None:
    """Each dashboard is in a ConfigMap that Grafana's sidecar finds, as it was generated."""
    shown = {
        name: json.loads(text)
        for found in of_kind("ConfigMap", *NEEDED, "dashboards.enabled=true")
        if found["metadata"]["labels"].get("grafana_dashboard") == "1"
        for name, text in found["data"].items()
    }
    files = (CHART / "files" / "dashboards").glob("*.json")
    assert shown == {f"fal-gateway-{path.name}": json.loads(path.read_text(encoding="utf-8")) for path in files}
    assert shown


def test_nothing_is_rendered_that_was_not_asked_for() -> None:
    """Custom resources and exposure are off until they are wanted."""
    assert sorted(found["kind"] for found in objects(*NEEDED) if found["kind"] != "Pod") == [
        "Deployment",
        "PodDisruptionBudget",
        "Service",
        "Service",
        "ServiceAccount",
    ]


def test_everything_can_be_had_at_once() -> None:
    """The features do not get in each other's way, and every object is in the release's namespace or the one named."""
    switches = (
        "httpRoute",
        "ingress",
        "networkPolicy",
        "serviceMonitor",
        "prometheusRule",
        "dashboards",
        "autoscaling",
    )
    sets = (
        *SHARED,
        *(f"{name}.enabled=true" for name in switches),
        "httpRoute.parentRefs[0].name=public",
        "ingress.hosts[0].host=fal.example.com",
        "policy.teams[0].id=design",
    )
    found = parsed(render(*sets))
    assert {each["metadata"]["namespace"] for each in found} == {NAMESPACE}
    assert len(found) >= 15


def instance() -> dict[str, str]:
    """Return the labels that all of a release's own pods carry."""
    return {"app.kubernetes.io/name": "fal-gateway", "app.kubernetes.io/instance": "gw"}


def namespace(name: str) -> dict[str, Any]:
    """Return the peer of a NetworkPolicy that is a whole namespace."""
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}
