"""Who reaches whom: Services, the route, monitors, and what the network policy lets in and out."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chart.helm import (
    NEEDED,
    container,
    environment,
    needs_helm,
    network_policy,
    of_kind,
    scenario,
    the,
)

pytestmark = needs_helm


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
    spec = network_policy(*NEEDED, "networkPolicy.enabled=true")["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert allowed(spec["ingress"], "from") == {
        ("TCP", "http"): None,
        ("TCP", "ops"): [namespace("monitoring"), tests],
    }
    named = network_policy(scenario=scenario("network-policy"))["spec"]
    assert allowed(named["ingress"][:2], "from") == {
        ("TCP", "http"): [namespace("apps"), tests],
        ("TCP", "ops"): [namespace("observability"), tests],
    }


def test_the_network_policy_lets_out_what_is_needed() -> None:
    """Names, TLS to the internet but not the cloud's metadata, and Redis and the database where there are any."""
    plain = allowed(network_policy(*NEEDED, "networkPolicy.enabled=true")["spec"]["egress"], "to")
    assert set(plain) == {("UDP", 53), ("TCP", 53), ("TCP", 443)}
    assert plain["TCP", 443][0] == {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}}
    ports = set(allowed(network_policy(scenario=scenario("replicas"))["spec"]["egress"], "to"))
    assert ports - set(plain) == {("TCP", 6380), ("TCP", 5433)}
    named = allowed(network_policy(scenario=scenario("network-policy"))["spec"]["egress"], "to")
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
    spec = network_policy(*NEEDED, "networkPolicy.enabled=true", f"redis.url={url}")["spec"]
    assert ("TCP", port) in allowed(spec["egress"], "to")


@pytest.mark.parametrize(
    ("url", "ports"),
    [
        ("postgresql://u:p%40w@db/x", {5432}),
        ("postgresql://u:p@h1:5433,h2:5434/db", {5433, 5434}),
        ("postgresql://u:p@h1:5433,[2001:db8::1]/db", {5433, 5432}),
        ("postgresql://db/x?port=6000", {6000}),
        ("postgresql://db:5433/x?sslmode=require&port=6000,6001", {6000, 6001}),
        ("postgresql:///db?host=h1&port=6000", {6000}),
        ("postgresql:///db?host=h1:6000&host=h2", {6000, 5432}),
        ("postgresql:///db?host=h1%3A6000%2Ch2%3A6001", {6000, 6001}),
    ],
)
def test_the_network_policy_reads_every_port_of_a_database(url: str, ports: set[int]) -> None:
    """Several hosts, and a query, may name ports, too."""
    value = f"database.url={url.replace(',', chr(92) + ',')}"
    egress = network_policy(*NEEDED, "networkPolicy.enabled=true", value)["spec"]["egress"]
    assert {port for _, port in allowed(egress, "to")} - {53, 443} == ports


def test_the_network_policy_goes_by_what_is_used() -> None:
    """A Redis behind a socket has no port; a URL that a Secret stands in for is not the one in use."""
    socket = network_policy(*NEEDED, "networkPolicy.enabled=true", "redis.url=unix:///run/redis.sock")["spec"]
    assert {port for _, port in allowed(socket["egress"], "to")} == {53, 443}
    both = ("redis.url=redis://r:7000", "redis.existingSecret=r")
    secret = network_policy(*NEEDED, "networkPolicy.enabled=true", *both)["spec"]
    assert ("TCP", 6379) in allowed(secret["egress"], "to")


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


def instance() -> dict[str, str]:
    """Return the labels that all of a release's own pods carry."""
    return {"app.kubernetes.io/name": "fal-gateway", "app.kubernetes.io/instance": "gw"}


def namespace(name: str) -> dict[str, Any]:
    """Return the peer of a NetworkPolicy that is a whole namespace."""
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}
