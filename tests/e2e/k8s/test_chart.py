"""The chart's objects as an API server judges them; a release installed, upgraded, rolled back and taken away."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import pytest
import yaml

from tests.e2e.k8s.cluster import KUBECTL, MODELS, Cluster, CommandFailed
from tests.e2e.tools import ROOT
from tests.harness.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(not KUBECTL.exists(), reason="helm is fetched for Linux on x86_64 only")

CHART: Final = ROOT / "deploy" / "helm" / "fal-gateway"
HELMS: Final = ("3.17.2", "4.1.4")
SCENARIOS: Final = (*sorted((CHART / "ci").glob("*-values.yaml")), CHART / "values-prod.yaml")
NAME: Final = "gw-fal-gateway"
CREDENTIAL: Final = "existingSecret=fal"
POLICY: Final = {"teams": [{"id": "design"}]}
OTHER_POLICY: Final = {"teams": [{"id": "design"}, {"id": "research"}]}
KINDS: Final = (
    "deployments,services,serviceaccounts,configmaps,secrets,pods,poddisruptionbudgets,horizontalpodautoscalers,"
    "networkpolicies,ingresses,httproutes,servicemonitors,podmonitors,prometheusrules,scaledobjects"
)
KUBERNETES_OWN: Final = {("ServiceAccount", "default"), ("ConfigMap", "kube-root-ca.crt")}
WAIT_SECONDS: Final = 60.0
EXTERNAL_SECRET: Final = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "externalsecrets.external-secrets.io"},
    "spec": {
        "group": "external-secrets.io",
        "names": {"kind": "ExternalSecret", "plural": "externalsecrets"},
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}
"""An example in the chart's scenarios is one of these; what is in it is not the chart's."""

NAMED: Final = (
    {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "high"}, "value": 1000},
    {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "gvisor"}, "handler": "gvisor"},
)
"""What a scenario's pods name, a cluster has."""


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Run a control plane that knows the custom resources that the chart can make."""
    with Cluster(tmp_path_factory.mktemp("cluster")) as running:
        running.kubectl("create", "--filename", str(MODELS))
        running.apply(EXTERNAL_SECRET, *NAMED)
        running.kubectl("wait", "--for=condition=Established", "customresourcedefinitions", "--all", "--timeout=60s")
        yield running


@pytest.fixture(scope="session")
def scenarios(cluster: Cluster) -> str:
    """Return a namespace that lets in restricted pods only, for what is judged and not kept."""
    cluster.make_namespace("scenarios")
    return "scenarios"


def rendered(cluster: Cluster, namespace: str, *arguments: str) -> list[dict[str, Any]]:
    """Return the objects that the chart renders, the pods of `helm test` among them, and a pod of its Deployment."""
    text = cluster.helm(HELMS[-1], "template", "gw", str(CHART), "--namespace", namespace, *arguments)
    objects = [found for found in yaml.safe_load_all(text) if found]
    (deployment,) = [found for found in objects if found["kind"] == "Deployment"]
    template = deployment["spec"]["template"]
    metadata = {**template["metadata"], "name": "of-the-deployment", "namespace": namespace}
    objects.append({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": dict(template["spec"])})
    for found in objects:
        if found["kind"] == "Pod":
            found["spec"]["serviceAccountName"] = "default"  # the release's own is not there: nothing is kept
    return objects


def judge(cluster: Cluster, objects: list[dict[str, Any]]) -> str:
    """Let the API server judge objects with all its admission, and keep none; return what it says of them."""
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    return cluster.kubectl("create", "--dry-run=server", "--validate=strict", "--filename=-", text=text)


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.name.removesuffix("-values.yaml"))
def test_every_scenario_is_let_in(cluster: Cluster, scenarios: str, path: Path) -> None:
    """Each object passes validation and admission without a warning; each pod meets the standard `restricted`."""
    objects = rendered(cluster, scenarios, "--values", str(path))
    elsewhere = {found["metadata"].setdefault("namespace", scenarios) for found in objects} - {scenarios}
    for namespace in elsewhere:
        cluster.make_namespace(namespace)
    said = judge(cluster, objects)
    assert "Warning" not in said
    assert said.count("(server dry run)") == len(objects)


def test_the_judge_refuses_what_is_misspelt(cluster: Cluster, scenarios: str) -> None:
    """A field that Kubernetes doesn't know is an error here, or the test above would show nothing."""
    extra = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {"ports": [{"prot": 1}]}}
    objects = rendered(cluster, scenarios, "--set", CREDENTIAL, "--set-json", f"extraObjects=[{json.dumps(extra)}]")
    for found in objects:
        found["metadata"].setdefault("namespace", scenarios)
    with pytest.raises(CommandFailed, match=r"unknown field .*prot"):
        judge(cluster, objects)


class Release:
    """A release of the chart in a namespace of its own, by one version of helm."""

    def __init__(self, cluster: Cluster, namespace: str, *, helm: str) -> None:
        self._cluster, self.namespace, self._helm = cluster, namespace, helm
        cluster.make_namespace(namespace)

    def helm(self, command: str, *arguments: str) -> str:
        """Run a command of helm's on the release."""
        return self._cluster.helm(self._helm, command, "gw", *arguments, "--namespace", self.namespace)

    def install(self, *arguments: str) -> None:
        """Install it."""
        self.helm("install", str(CHART), *arguments)

    def upgrade(self, *arguments: str) -> None:
        """Upgrade it; values of before are forgotten, as without `--reuse-values`."""
        self.helm("upgrade", str(CHART), *arguments)

    def objects(self, kinds: str = KINDS) -> dict[tuple[str, str], dict[str, Any]]:
        """Return what is in the namespace by kind and name, without what Kubernetes and helm put there."""
        found = self._cluster.objects(kinds, self.namespace)
        named = {(each["kind"], each["metadata"]["name"]): each for each in found}
        ours = {key: each for key, each in named.items() if key not in KUBERNETES_OWN}
        return {key: each for key, each in ours.items() if not key[1].startswith("sh.helm.release")}

    def the(self, kind: str, name: str = NAME) -> dict[str, Any]:
        """Return one object."""
        return self.objects(f"{kind.lower()}s")[kind, name]

    def template(self) -> dict[str, Any]:
        """Return the template of its pods."""
        return dict(self.the("Deployment")["spec"]["template"])

    def wait_for_pod(self) -> dict[str, Any]:
        """Wait until there is a pod by the template of now, let in and made by the controllers; return it."""

        def current() -> dict[str, Any] | None:
            wanted = self.template()["metadata"]["annotations"]
            pods = self._cluster.objects("pods", self.namespace)
            return next((pod for pod in pods if wanted.items() <= pod["metadata"]["annotations"].items()), None)

        return until(current, "a pod of the release's template", timeout_seconds=WAIT_SECONDS)

    def refusals(self) -> list[str]:
        """Return what the controllers were told when they were to make a pod and could not."""
        events = self._cluster.objects("events", self.namespace)
        return [event["message"] for event in events if event["reason"] == "FailedCreate"]


def policy(document: object, *more: str) -> list[str]:
    """Return helm's arguments for a release with this policy, and `more` values."""
    sets = [part for pair in (CREDENTIAL, *more) for part in ("--set", pair)]
    return [*sets, "--set-json", f"policy={json.dumps(document)}"]


@pytest.fixture(params=HELMS)
def release(cluster: Cluster, request: pytest.FixtureRequest) -> Release:
    """Return a release that is not yet installed, for each version of helm."""
    test = str(request.function.__name__).removeprefix("test_").replace("_", "-")[:40].strip("-")
    return Release(cluster, f"{test}-{request.param.replace('.', '-')}", helm=request.param)


def test_a_release_lives_and_leaves_nothing(release: Release) -> None:
    """Installed, upgraded with another policy, rolled back to the very first, and taken away without a trace."""
    release.install(*policy(POLICY))
    assert release.wait_for_pod()["spec"]["containers"][0]["name"] == "gateway"
    first, template = release.objects(), release.template()
    assert {("Deployment", NAME), ("Service", NAME), ("Service", f"{NAME}-ops"), ("ServiceAccount", NAME)} <= set(first)

    release.upgrade(*policy(OTHER_POLICY, "settings.FALGW_MAX_INFLIGHT=500"))
    release.wait_for_pod()
    assert release.template()["metadata"]["annotations"] != template["metadata"]["annotations"]
    for key in (("Deployment", NAME), ("Service", NAME)):
        assert release.objects()[key]["metadata"]["uid"] == first[key]["metadata"]["uid"]
    assert release.the("Service")["spec"]["clusterIP"] == first["Service", NAME]["spec"]["clusterIP"]

    release.helm("rollback", "1")
    assert release.template() == template
    policies = [key for key in first if key[0] == "ConfigMap"]
    assert [release.objects()[key]["data"] for key in policies] == [first[key]["data"] for key in policies]

    release.helm("uninstall")
    until(lambda: not release.objects(), "everything to be gone", timeout_seconds=WAIT_SECONDS)


def test_one_replica_grows_into_production_and_back(release: Release) -> None:
    """No field that Kubernetes won't have changed stands in the way of values-prod.yaml, nor of the way back."""
    release.install(*policy(POLICY))
    before = set(release.objects())
    release.upgrade("--values", str(CHART / "values-prod.yaml"))
    release.wait_for_pod()
    assert not release.refusals()
    grown = set(release.objects())
    assert {"HorizontalPodAutoscaler", "NetworkPolicy"} <= {kind for kind, _ in grown - before}
    release.helm("rollback", "1")
    until(lambda: kept(release) == {key for key in before if key[0] != "Pod"}, "what production brought to be gone")


def kept(release: Release) -> set[tuple[str, str]]:
    """Return what is there but for pods, of which there are as many as the controllers are at."""
    return {key for key in release.objects() if key[0] != "Pod"}


def test_replicas_that_a_scaler_owns_stay_as_they_are(cluster: Cluster) -> None:
    """An upgrade while a scaler is at work sets nobody back to the number that the chart would begin with."""
    release = Release(cluster, "scaled", helm=HELMS[-1])
    scenario = ["--values", str(CHART / "ci" / "autoscaling-values.yaml")]
    release.install(*scenario)
    cluster.kubectl("scale", f"deployment/{NAME}", "--replicas=4", "--namespace", release.namespace)
    release.upgrade(*scenario, "--set", "settings.FALGW_LOG_LEVEL=warning")
    assert release.the("Deployment")["spec"]["replicas"] == 4


def test_a_pod_that_asks_for_more_is_kept_out(cluster: Cluster) -> None:
    """The namespaces here do refuse: a container that may gain privileges is never made."""
    release = Release(cluster, "privileged", helm=HELMS[-1])
    release.install("--set", CREDENTIAL, "--set", "securityContext.allowPrivilegeEscalation=true")
    (said, *_) = until(release.refusals, "the refusal of a pod", timeout_seconds=WAIT_SECONDS)
    assert 'violates PodSecurity "restricted' in said
