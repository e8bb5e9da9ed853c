"""The gateway's pod, and those of `helm test`: safe, pinned, ended in order, and with what they need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.chart.helm import (
    NEEDED,
    SCENARIOS,
    container,
    environment,
    needs_helm,
    objects,
    pod_spec,
    render,
    scenario,
    the,
)

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = needs_helm

FILES: Final = [pytest.param(path, id=path.stem) for path in SCENARIOS]
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


@pytest.mark.parametrize("path", FILES)
def test_what_the_gateway_writes_is_on_a_volume(path: Path) -> None:
    """The root cannot be written to: the SQLite file and the journals that wait for PostgreSQL lie on a volume."""
    found = container(scenario=path)
    mounts = {mount["mountPath"]: mount["name"] for mount in found["volumeMounts"] if not mount.get("readOnly")}
    assert mounts == {"/var/lib/fal-gateway": "state", "/tmp": "tmp"}  # noqa: S108 (a mount in a pod)
    assert found["workingDir"] == "/var/lib/fal-gateway"


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


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("default", {"FAL_KEY": "FAL_KEY"}),
        ("team-keys", {"FAL_KEY_ID": "id", "FAL_KEY_SECRET": "secret", "FAL_ADMIN_KEY": "FAL_ADMIN_KEY"}),
        ("credential-file", {}),
        ("vault-agent", {}),
        ("emulator", {}),
    ],
)
def test_the_credential_comes_out_of_the_secret(name: str, wanted: dict[str, str]) -> None:
    """Whole or in halves, under the keys that were named; no Secret is asked for where there is none."""
    found = {
        variable: value["secretKeyRef"]
        for variable, value in environment(scenario=scenario(name)).items()
        if variable.startswith("FAL_") and "secretKeyRef" in value and value["secretKeyRef"]["name"] == "fal"
    }
    assert found == {variable: {"name": "fal", "key": key} for variable, key in wanted.items()}


def test_the_credential_may_be_a_file() -> None:
    """The file that FAL_KEY_FILE names is the Secret's key, which only the gateway's group may read."""
    path = scenario("credential-file")
    place = environment(scenario=path)["FAL_KEY_FILE"]
    [volume] = [volume for volume in pod_spec(scenario=path)["volumes"] if volume["name"] == "credential"]
    [mount] = [mount for mount in container(scenario=path)["volumeMounts"] if mount["name"] == "credential"]
    assert volume["secret"]["items"] == [{"key": "credential", "path": "fal-key"}]
    assert volume["secret"]["defaultMode"] == 0o440
    assert place == f"{mount['mountPath']}/fal-key"


def test_a_node_can_be_drained() -> None:
    """One pod goes at a time, and one that is not ready holds nothing up."""
    spec = the("PodDisruptionBudget", *NEEDED)["spec"]
    assert (spec["maxUnavailable"], spec["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")
