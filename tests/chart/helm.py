"""Helm as the tests of the chart ask it: a rendering is text, objects out of it, or the sentence of a refusal.

The decision: each rendering is made once for a process and kept, since most tests look at the same few of them.
"""

from __future__ import annotations

import functools
import platform
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

ROOT: Final = Path(__file__).parents[2]
CHART: Final = ROOT / "deploy" / "helm" / "fal-gateway"
TOOLS: Final = ROOT / ".tools" / "chart"
VERSIONS: Final = ("3.17.2", "4.1.4")
NEWEST: Final = VERSIONS[-1]
NAMESPACE: Final = "media"
RELEASE: Final = "gw"
SCENARIOS: Final = (*sorted((CHART / "ci").glob("*-values.yaml")), CHART / "values-prod.yaml")
NEEDED: Final = ("existingSecret=fal",)
SHARED: Final = (*NEEDED, "redis.url=redis://redis.example", "database.url=postgresql://db.example/fal")

needs_helm: Final = pytest.mark.skipif(
    (platform.system(), platform.machine()) != ("Linux", "x86_64"), reason="helm is fetched for Linux on x86_64 only"
)


class Refused(Exception):  # noqa: N818 (a refusal of the chart is what a test asks for)
    """Helm rendered nothing; the text says why."""


def run_helm(version: str, *arguments: str) -> str:
    """Return what helm prints; Refused where it fails."""
    done = subprocess.run([TOOLS / f"helm-{version}", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused(done.stderr + done.stdout)
    return done.stdout


@functools.cache
def render(
    *sets: str, scenario: Path | None = None, version: str = NEWEST, release: str = RELEASE, notes: bool = False
) -> str:
    """Return the manifests of a scenario's file, if any, with `sets` (name=value) laid over it."""
    files = ["--values", str(scenario)] if scenario else []
    values = [part for pair in sets for part in ("--set", pair)]
    place = ["--namespace", NAMESPACE, *files, *values]
    if notes:
        return run_helm(version, "install", release, str(CHART), "--dry-run=client", *place)
    return run_helm(version, "template", release, str(CHART), *place)


def objects(*sets: str, scenario: Path | None = None, release: str = RELEASE) -> list[dict[str, Any]]:
    """Return the objects of a rendering."""
    return parsed(render(*sets, scenario=scenario, release=release))


@functools.cache
def parsed(text: str) -> list[dict[str, Any]]:
    """Return the objects of a text: the same ones each time, which nobody changes."""
    return [found for found in yaml.load_all(text, Loader=yaml.CSafeLoader) if found]


def of_kind(kind: str, *sets: str, scenario: Path | None = None, release: str = RELEASE) -> list[dict[str, Any]]:
    """Return the objects of one kind, without the pods of `helm test` among them."""
    return [found for found in objects(*sets, scenario=scenario, release=release) if found["kind"] == kind]


def the(kind: str, *sets: str, scenario: Path | None = None, release: str = RELEASE) -> dict[str, Any]:
    """Return the one object of a kind."""
    [found] = of_kind(kind, *sets, scenario=scenario, release=release)
    return found


def network_policy(*sets: str, scenario: Path | None = None) -> dict[str, Any]:
    """Return the NetworkPolicy of the gateway, not that of the pods of `helm test`."""
    found = of_kind("NetworkPolicy", *sets, scenario=scenario)
    return next(each for each in found if not each["metadata"]["name"].endswith("-test"))


def pod_spec(*sets: str, scenario: Path | None = None) -> dict[str, Any]:
    """Return the specification of the gateway's pod."""
    return dict(the("Deployment", *sets, scenario=scenario)["spec"]["template"]["spec"])


def container(*sets: str, scenario: Path | None = None) -> dict[str, Any]:
    """Return the gateway's container."""
    [found] = [part for part in pod_spec(*sets, scenario=scenario)["containers"] if part["name"] == "gateway"]
    return dict(found)


def environment(*sets: str, scenario: Path | None = None) -> dict[str, Any]:
    """Return the gateway's variables: a plain value as text, else where it comes from."""
    return {
        entry["name"]: entry.get("value", entry.get("valueFrom"))
        for entry in container(*sets, scenario=scenario)["env"]
    }


def refusal(*sets: str) -> str:
    """Return what helm says where it refuses; the test fails where it does not."""
    try:
        render(*sets)
    except Refused as refused:
        return str(refused)
    raise AssertionError(f"rendered with {sets}")


def scenario(name: str) -> Path:
    """Return the file of a scenario."""
    return CHART / "ci" / f"{name}-values.yaml"
