"""What all objects of a release promise: stable names and selectors, one owner of replicas, files as they are."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

import pytest
import yaml

from tests.chart.helm import (
    CHART,
    NAMESPACE,
    NEEDED,
    SCENARIOS,
    SHARED,
    needs_helm,
    network_policy,
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
        selectors.append(network_policy(scenario=path)["spec"]["podSelector"]["matchLabels"])
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
    one = "[bcdfghjklmnpqrstvwxz24-9]"
    assert trigger["metadata"]["query"] == (
        f'sum(fal_gateway_inflight_requests{{namespace="{NAMESPACE}", pod=~"gw-fal-gateway-{one}{{1,10}}-{one}{{5}}"}})'
    )


def pod_name(deployment: str, digest: str = "7d865f9b4c") -> str:
    """Return the name of a pod of a Deployment, as Kubernetes makes it."""
    return f"{deployment}-{digest}-"[:58] + "x7k2p"


@pytest.mark.parametrize("length", [1, 45, 46, 47, 48, 53, 55, 56, 57, 58, 63])
def test_keda_finds_the_pods_whatever_the_release_is_called(length: int) -> None:
    """Kubernetes cuts long names, hyphen and hash; a release whose name begins with this one's is not meant."""
    name = f"{'a-release-with-a-name-of-its-own-that-is-as-long-as-can-be-at-all'[: length - 1]}x"
    [trigger] = the("ScaledObject", f"fullnameOverride={name}", scenario=scenario("keda"))["spec"]["triggers"]
    [pattern] = re.findall(r'pod=~"([^"]+)"', trigger["metadata"]["query"])
    for digest in ("7d865f9b4c", "865f9b4c7", "65f9b4c7"):
        assert re.fullmatch(pattern, pod_name(name, digest))
    for other in (f"{name[:52]}-b", f"{name[:52]}-emulator", f"{name[:-1]}y", name[:-2] or "y"):
        if other[:58] != name[:58]:
            assert not re.fullmatch(pattern, pod_name(other)), other


def test_releases_of_one_name_do_not_meet_in_another_namespace() -> None:
    """What lies beside the monitoring has the release's namespace in its name, within 63 characters."""
    names = ("serviceMonitor", "prometheusRule", "dashboards")
    sets = (*NEEDED, *(f"{name}.{what}" for name in names for what in ("enabled=true", "namespace=monitoring")))
    for release in (LONG_RELEASE[:53], "gw"):
        found = [each for each in objects(*sets, release=release) if each["metadata"]["namespace"] == "monitoring"]
        assert {each["kind"] for each in found} == {"ConfigMap", "PrometheusRule", "ServiceMonitor"}
        ours = [each["metadata"]["name"] for each in found]
        assert all(name.startswith(f"{NAMESPACE}-{release[:40]}") and len(name) <= 63 for name in ours)
        assert len(set(ours)) == len({(each["kind"], each["metadata"]["name"]) for each in found}) - 1
    at_home = [
        each["metadata"]["name"] for each in objects(*NEEDED, "dashboards.enabled=true", "prometheusRule.enabled=true")
    ]
    assert not [name for name in at_home if name.startswith(NAMESPACE)]


def test_the_ledger_outlives_its_pod_where_asked_to() -> None:
    """With a claim the old pod is gone before the new one opens the file, and the claim outlives the release."""
    path = scenario("sqlite")
    claim = the("PersistentVolumeClaim", scenario=path)
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert the("Deployment", scenario=path)["spec"]["strategy"] == {"type": "Recreate"}
    [volume] = [volume for volume in pod_spec(scenario=path)["volumes"] if volume["name"] == "state"]
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert not of_kind("PersistentVolumeClaim", scenario=scenario("sqlite-existing-claim"))


def test_the_notes_say_what_is_lost() -> None:
    """Who installs it without a database and without a volume reads that nothing is kept."""
    assert "NOTHING IS KEPT" in render(*NEEDED, notes=True)
    assert "NO POLICY" in render(*NEEDED, notes=True)
    assert "NOTHING IS KEPT" not in render(scenario=scenario("sqlite"), notes=True)
    assert "stays when this release is uninstalled" in render(scenario=scenario("sqlite"), notes=True)
    assert "NOTHING IS KEPT" not in render(scenario=scenario("postgresql"), notes=True)


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


@pytest.mark.parametrize("path", FILES)
def test_what_an_object_names_is_there(path: Path) -> None:
    """Scalers, routes and pods name objects that are rendered beside them, or that the values name."""
    found = objects(scenario=path)
    there = {(each["kind"], each["metadata"]["name"]) for each in found}
    targets = [each["spec"]["scaleTargetRef"] for each in found if "scaleTargetRef" in each.get("spec", {})]
    assert all(target["apiVersion"] == "apps/v1" for target in targets)
    named = [*((target["kind"], target["name"]) for target in targets), *routed(found), *mounted(found)]
    values = path.read_text(encoding="utf-8")
    for kind, name in named:
        assert (kind, name) in there or name in values, f"{kind} {name}"


def routed(found: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return the Services that routes lead to."""
    routes = [rule for each in found if each["kind"] == "HTTPRoute" for rule in each["spec"]["rules"]]
    rules = [rule for each in found if each["kind"] == "Ingress" for rule in each["spec"]["rules"]]
    paths = [path for rule in rules for path in rule["http"]["paths"]]
    names = [reference["name"] for rule in routes for reference in rule["backendRefs"]]
    return [("Service", name) for name in [*names, *(path["backend"]["service"]["name"] for path in paths)]]


def mounted(found: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return what the gateway's pod takes out of other objects."""
    spec = next(each["spec"]["template"]["spec"] for each in found if each["kind"] == "Deployment")
    [gateway] = [part for part in spec["containers"] if part["name"] == "gateway"]
    variables = [entry["valueFrom"]["secretKeyRef"]["name"] for entry in gateway["env"] if "valueFrom" in entry]
    volumes = spec["volumes"]
    return [
        *(("Secret", name) for name in variables),
        *(("ConfigMap", volume["configMap"]["name"]) for volume in volumes if "configMap" in volume),
        *(
            ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"])
            for volume in volumes
            if "persistentVolumeClaim" in volume
        ),
        *([("ServiceAccount", spec["serviceAccountName"])] if spec["serviceAccountName"] != "default" else []),
    ]
