"""Labels and annotations that meet: each key once, and those that the chart goes by are nobody else's."""

from __future__ import annotations

import pytest
from yamllint import linter
from yamllint.config import YamlLintConfig

from tests.chart.helm import NEEDED, needs_helm, of_kind, refusal, render, the

pytestmark = needs_helm

PLACES = (
    "serviceAccount.labels",
    "service.labels",
    "opsService.labels",
    "httpRoute.labels",
    "serviceMonitor.labels",
    "prometheusRule.labels",
    "dashboards.labels",
    "podLabels",
)
EVERYTHING = (
    *NEEDED,
    *(f"{name}.enabled=true" for name in ("httpRoute", "serviceMonitor", "prometheusRule", "dashboards")),
    "httpRoute.parentRefs[0].name=public",
)
OURS = (
    "app.kubernetes.io/name",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/component",
    "app.kubernetes.io/version",
    "app.kubernetes.io/managed-by",
    "helm.sh/chart",
)
DOUBLED = YamlLintConfig("rules: {key-duplicates: enable}")


def escaped(key: str) -> str:
    """Return a key as `--set` wants it."""
    return key.replace(".", "\\.")


def test_labels_that_meet_are_one() -> None:
    """What is said of one object goes before what is said of all, and no mapping has a key twice."""
    sets = (*EVERYTHING, "commonLabels.release=all", *(f"{place}.release=own" for place in PLACES))
    text = render(*sets)
    assert [str(fault) for document in text.split("\n---\n") for fault in linter.run(document, DOUBLED)] == []
    own = {
        kind: {found["metadata"]["labels"]["release"] for found in of_kind(kind, *sets)}
        for kind in ("ServiceAccount", "Service", "HTTPRoute", "ServiceMonitor", "PrometheusRule", "ConfigMap")
    }
    assert own == {kind: {"own"} for kind in own}
    deployment = the("Deployment", *sets)
    assert deployment["metadata"]["labels"]["release"] == "all"
    assert deployment["spec"]["template"]["metadata"]["labels"]["release"] == "own"
    emptied = the("Deployment", *NEEDED, "commonLabels.release=all", "podLabels.release=")
    assert emptied["spec"]["template"]["metadata"]["labels"]["release"] == ""


@pytest.mark.parametrize("place", ["commonLabels", "podMonitor.labels", *PLACES])
def test_a_label_of_the_charts_own_is_refused(place: str) -> None:
    """Pods that are labelled otherwise than the selector says would never be let in, or never be found."""
    said = refusal(*NEEDED, *(f"{place}.{escaped(key)}=x" for key in OURS))
    for key in OURS:
        assert f"{place} holds {key}, which is the chart's own" in said


def test_annotations_of_the_pod_that_meet_are_one() -> None:
    """A checksum is the chart's own; which container is the default one may be said otherwise."""
    said = refusal(*NEEDED, "podAnnotations.checksum/policy=x", "redis.url=redis://r", "podAnnotations.checksum/urls=y")
    assert "podAnnotations holds checksum/policy, which is the chart's own" in said
    assert "podAnnotations holds checksum/urls, which is the chart's own" in said
    chosen = (*NEEDED, f"podAnnotations.{escaped('kubectl.kubernetes.io/default-container')}=tail")
    annotations = the("Deployment", *chosen)["spec"]["template"]["metadata"]["annotations"]
    assert annotations["kubectl.kubernetes.io/default-container"] == "tail"
    yours = (*NEEDED, "existingPolicyConfigMap=p", "podAnnotations.checksum/policy=mine")
    assert the("Deployment", *yours)["spec"]["template"]["metadata"]["annotations"]["checksum/policy"] == "mine"


@pytest.mark.parametrize("name", ["fullnameOverride=A_b", "nameOverride=N x", "nameOverride=-a", "fullnameOverride=1a"])
def test_a_name_that_kubernetes_would_refuse_is_refused(name: str) -> None:
    """Names become those of Services: small letters, digits and hyphens."""
    said = refusal(*NEEDED, name)
    assert "schema" in said
    assert name.partition("=")[0] in said
