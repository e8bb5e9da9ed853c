"""What would render and not work is refused, with a sentence that names the value."""

from __future__ import annotations

import pytest

from tests.chart.helm import NEEDED, SHARED, VERSIONS, Refused, needs_helm, refusal, render

pytestmark = needs_helm


def variable(name: str, value: str) -> tuple[str, ...]:
    """Return the values that set a variable of the gateway's pod."""
    return (f"extraEnv[0].name={name}", f"extraEnv[0].value={value}")


REFUSED = [
    ((), "existingSecret is empty"),
    (("existingSecret=fal", "emulator.enabled=true"), "emulator.enabled: the emulator shows every credential"),
    (("existingSecret=fal", "extraEnv[0].name=FAL_KEY_FILE", "extraEnv[0].value=/key"), "keep one of them"),
    ((*NEEDED, "secretKeys.falKeyId=id"), "secretKeys.falKeyId goes with secretKeys.falKeySecret"),
    ((*NEEDED, "secretKeys.falKeySecret=secret"), "secretKeys.falKeySecret goes with secretKeys.falKeyId"),
    (
        (*NEEDED, "secretKeys.falKeyId=id", "secretKeys.falKeySecret=secret", "secretKeys.asFile=true"),
        "secretKeys.asFile hands over the whole credential",
    ),
    ((*NEEDED, *variable("FAL_KEY_SECRET", "x")), "existingSecret and extraEnv both bring"),
    (variable("FAL_KEY_ID", "x"), "extraEnv brings one half"),
    (variable("FAL_KEY_SECRET", "x"), "FAL_KEY_ID and FAL_KEY_SECRET go together"),
    (
        (*NEEDED, "settings.FALGW_DRAIN_TIMEOUT=", *variable("FALGW_DRAIN_TIMEOUT", "3600.0")),
        "draining may take 3615",
    ),
    (
        (*NEEDED, "settings.FALGW_SHUTDOWN_DELAY=null", *variable("FALGW_SHUTDOWN_DELAY", "60.0")),
        "is 930, and draining may take 970",
    ),
    ((*NEEDED, "terminationGracePeriodSeconds=914"), "terminationGracePeriodSeconds is 914, and draining may take 915"),
    ((*NEEDED, "settings.FALGW_DRAIN_TIMEOUT=1000"), "draining may take 1015"),
    ((*NEEDED, "settings.FALGW_DRAIN_TIMEOUT=919.5"), "draining may take 935"),
    ((*NEEDED, "settings.FALGW_SHUTDOWN_DELAY=60"), "draining may take 970"),
    ((*NEEDED, "settings.FALGW_DRAIN_TIMEOUT=", "terminationGracePeriodSeconds=60"), "draining may take 915"),
    ((*NEEDED, "preStopSleepSeconds=30"), "draining may take 940"),
    ((*NEEDED, "replicaCount=2", "database.url=postgresql://db/fal"), "replicaCount is 2, and there is no Redis"),
    ((*NEEDED, "replicaCount=2", "redis.url=redis://r"), "replicaCount is 2, and the ledger is an SQLite file"),
    ((*NEEDED, "autoscaling.enabled=true"), "autoscaling.maxReplicas is 6, and there is no Redis"),
    (
        (*NEEDED, "keda.enabled=true", "keda.prometheus.serverAddress=http://p"),
        "keda.maxReplicas is 6, and there is no Redis",
    ),
    (
        (*NEEDED, "replicaCount=3", "redis.url=redis://r", "database.url=sqlite:///x.db"),
        "replicaCount is 3, and the ledger is an SQLite file",
    ),
    ((*SHARED, "replicaCount=2", "persistence.enabled=true"), "replicaCount is 2, and persistence.enabled is true"),
    ((*SHARED[1:], "emulator.enabled=true", "replicaCount=2"), "replicaCount is 2, and emulator.enabled is true"),
    ((*SHARED, "autoscaling.enabled=true", "autoscaling.minReplicas=9"), "autoscaling.minReplicas is 9, above"),
    (
        (*SHARED, "autoscaling.enabled=true", "keda.enabled=true", "keda.prometheus.serverAddress=http://p"),
        "autoscaling.enabled and keda.enabled are both true",
    ),
    ((*SHARED, "keda.enabled=true"), "keda.prometheus.serverAddress is empty"),
    (
        (*SHARED, "autoscaling.enabled=true", "autoscaling.targetCPUUtilizationPercentage="),
        "there is nothing to scale on",
    ),
    (
        (*NEEDED, "serviceMonitor.enabled=true", "podMonitor.enabled=true"),
        "serviceMonitor.enabled and podMonitor.enabled are both true",
    ),
    ((*NEEDED, "policy.teams[0].id=a", "existingPolicyConfigMap=b"), "policy and existingPolicyConfigMap are both set"),
    ((*NEEDED, "image.tag=latest"), "image.tag is latest"),
    ((*NEEDED, "httpRoute.enabled=true"), "httpRoute.parentRefs is empty"),
    ((*NEEDED, "ingress.enabled=true"), "ingress.hosts is empty"),
    ((*NEEDED, "settings.FALGW_OPS_PORT=8080"), "settings.FALGW_OPS_PORT is the same as settings.FALGW_PORT"),
    ((*NEEDED, "settings.FALGW_OPS_PORT=", "settings.FALGW_PORT=9090"), "the two listeners need a port each"),
    (("emulator.enabled=true", "emulator.port=8080"), "emulator.port is the same as settings.FALGW_PORT"),
    (
        ("emulator.enabled=true", "settings.FALGW_OPS_PORT=8090"),
        "emulator.port is the same as settings.FALGW_OPS_PORT",
    ),
    (
        (*NEEDED, "persistence.enabled=true", "strategy.type=RollingUpdate"),
        "strategy.type is RollingUpdate, and persistence.enabled is true",
    ),
    (
        (*NEEDED, "persistence.enabled=true", "strategy.rollingUpdate.maxSurge=1"),
        "two pods would write to one volume",
    ),
    (
        (*NEEDED, "strategy.type=Recreate", "strategy.rollingUpdate.maxSurge=1"),
        "strategy.rollingUpdate does not go with strategy.type Recreate",
    ),
    ((*NEEDED, "service.nodePort=30080"), "service.nodePort is set, and service.type is ClusterIP"),
    (
        (*NEEDED, "service.externalTrafficPolicy=Local"),
        "service.externalTrafficPolicy is set, and service.type is ClusterIP",
    ),
    (
        (*NEEDED, "service.type=NodePort", "service.loadBalancerClass=a/b"),
        "service.loadBalancerClass is set, and service.type is NodePort",
    ),
    ((*NEEDED, "extraEnv[0].name=FALGW_PORT", "extraEnv[0].value=x"), "FALGW_PORT is set twice"),
    (
        ("emulator.enabled=true", "settings.FALGW_ORIGIN_OVERRIDES=fal.run=https://x.example"),
        "FALGW_ORIGIN_OVERRIDES is set twice",
    ),
]


@pytest.mark.parametrize(("sets", "sentence"), REFUSED, ids=[sentence for _, sentence in REFUSED])
def test_a_guard_says_what_is_wrong(sets: tuple[str, ...], sentence: str) -> None:
    """Each guard refuses, and its sentence names the value."""
    assert sentence in refusal(*sets)


@pytest.mark.parametrize("version", VERSIONS)
def test_everything_wrong_is_said_at_once(version: str) -> None:
    """One run of helm tells all sentences, with either major version."""
    with pytest.raises(Refused) as told:
        render("replicaCount=2", "terminationGracePeriodSeconds=30", "image.tag=latest", version=version)
    for sentence in ("existingSecret is empty", "no Redis", "an SQLite file", "draining may take 915", "image.tag is"):
        assert sentence in str(told.value)


@pytest.mark.parametrize(
    "sets",
    [
        (*NEEDED, "terminationGracePeriodSeconds=915"),
        (*NEEDED, "terminationGracePeriodSeconds=45", "settings.FALGW_DRAIN_TIMEOUT=30"),
        (*SHARED, "replicaCount=3"),
        (*SHARED, "replicaCount=3", "autoscaling.enabled=true"),
        (*NEEDED, "autoscaling.enabled=true", "autoscaling.minReplicas=1", "autoscaling.maxReplicas=1"),
        ("extraEnv[0].name=FAL_KEY", "extraEnv[0].value=from-elsewhere"),
        (*NEEDED, "image.tag=latest", f"image.digest=sha256:{'0' * 64}"),
        ("extraEnvFrom[0].secretRef.name=fal",),
        ("extraEnvFrom[0].secretRef.name=fal", *variable("FAL_KEY_ID", "x")),
        (*NEEDED, "settings.FALGW_DRAIN_TIMEOUT=", *variable("FALGW_DRAIN_TIMEOUT", "915.0")),
        (*NEEDED, "persistence.enabled=true", "strategy.type=Recreate"),
        (*NEEDED, "service.type=NodePort", "service.nodePort=30080", "service.externalTrafficPolicy=Local"),
    ],
)
def test_what_is_right_is_not_refused(sets: tuple[str, ...]) -> None:
    """A guard stops at its edge."""
    assert "kind: Deployment" in render(*sets)


@pytest.mark.parametrize("release", ["my.release", "2024"])
def test_a_release_whose_name_no_service_takes_is_refused(release: str) -> None:
    """Helm takes names that a Service may not have; a full name of one's own stands in their place."""
    with pytest.raises(Refused, match=f"Release.Name is {release}, and a Service cannot be called {release}-fal"):
        render(*NEEDED, release=release)
    assert "name: fal\n" in render(*NEEDED, "fullnameOverride=fal", release=release)
