"""Every scenario renders with both helms to objects that Kubernetes, its extensions and yamllint find right."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any, Final

import pytest
from yamllint import linter
from yamllint.config import YamlLintConfig

from gateway.version import VERSION
from tests.chart.helm import (
    CHART,
    NEWEST,
    ROOT,
    SCENARIOS,
    VERSIONS,
    needs_helm,
    objects,
    of_kind,
    parsed,
    render,
    run_helm,
    scenario,
    the,
)
from tests.chart.schemas import FOREIGN, KUBERNETES, faults

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = needs_helm

JUDGED: Final = ("gateway.networking.k8s.io/", "monitoring.coreos.com/", "keda.sh/")
MODELS: Final = ROOT / "tests" / "chart" / "models"
RENDERED_STYLE: Final = YamlLintConfig(
    """
    extends: default
    rules:
      line-length: disable         # digests, and what is inserted whole
      document-start: disable      # helm writes them
      indentation: {indent-sequences: whatever}      # helm's toYaml does not indent them
      braces: {max-spaces-inside: 1}
      comments: {require-starting-space: false, min-spaces-from-content: 1}      # Python within a test's pod
      comments-indentation: disable
      quoted-strings: disable
    """
)
WRITTEN_STYLE: Final = YamlLintConfig(
    """
    extends: default
    rules:
      line-length: {max: 130}
      document-start: disable
      braces: {max-spaces-inside: 1}
      comments: {min-spaces-from-content: 1}
    """
)
FILES: Final = [pytest.param(path, id=path.stem) for path in SCENARIOS]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", FILES)
def test_a_scenario_passes_the_lint(path: Path, version: str) -> None:
    """`helm lint --strict` has nothing to say of any scenario, with either major version."""
    said = run_helm(version, "lint", "--strict", str(CHART), "--values", str(path), "--quiet")
    assert "[ERROR]" not in said
    assert "[WARNING]" not in said


@pytest.mark.parametrize("path", FILES)
def test_both_helms_render_the_same(path: Path) -> None:
    """An upgrade of helm changes no object."""
    first, second = (parsed(render(scenario=path, version=version)) for version in VERSIONS)
    assert [_named(found) for found in first] == [_named(found) for found in second]
    assert first == second


@pytest.mark.parametrize("kubernetes", KUBERNETES)
def test_every_object_fits_the_schemas_of_kubernetes(kubernetes: str) -> None:
    """The oldest supported release, a current one and the newest know every field that is written."""
    native = {
        json.dumps(found): found
        for path in SCENARIOS
        for found in objects(scenario=path)
        if not found["apiVersion"].startswith(FOREIGN)
    }
    assert len({found["kind"] for found in native.values()}) >= 11
    assert [fault for found in native.values() for fault in faults(found, kubernetes)] == []


def test_the_schemas_find_what_is_wrong() -> None:
    """The judge can say no: a misspelt field, and a value of the wrong type."""
    deployment = json.loads(json.dumps(the("Deployment", scenario=scenario("default"))))
    deployment["spec"]["template"]["spec"]["terminationGracePeriod"] = 5
    deployment["spec"]["replicas"] = "three"
    told = " ".join(faults(deployment, KUBERNETES[0]))
    assert "terminationGracePeriod" in told
    assert "three" in told


def judged(resources: list[dict[str, Any]]) -> list[str]:
    """Return what the models of custom resources find wrong."""
    done = subprocess.run(
        ["node", MODELS / "judge.mjs"], input=json.dumps(resources), capture_output=True, text=True, check=True
    )
    return list(json.loads(done.stdout))


def test_custom_resources_fit_their_models() -> None:
    """HTTPRoute, monitors, rules and ScaledObject are what their makers' models say; misspelt fields would be found."""
    custom = [found for path in SCENARIOS for found in objects(scenario=path) if found["apiVersion"].startswith(JUDGED)]
    assert {found["kind"] for found in custom} == {
        "HTTPRoute",
        "PodMonitor",
        "PrometheusRule",
        "ScaledObject",
        "ServiceMonitor",
    }
    wrong = json.loads(json.dumps(custom))
    next(found for found in wrong if found["kind"] == "HTTPRoute")["spec"]["rules"][0]["timeout"] = "0s"
    next(found for found in wrong if found["kind"] == "ServiceMonitor")["spec"]["endpoints"][0]["interval"] = "soon"
    *found, unknown = [fault for fault in judged([*custom, *wrong]) if fault]
    assert len(found) == 1
    assert "interval" in found[0]
    assert '"timeout"' in unknown


def test_what_is_rendered_passes_yamllint() -> None:
    """No trailing spaces, no doubled keys, no torn indentation in what is applied to a cluster."""
    documents = {document for path in SCENARIOS for document in render(scenario=path).split("\n---\n")}
    told = [
        (str(fault), document)
        for document in documents
        for fault in linter.run(document.strip("\n") + "\n", RENDERED_STYLE)
    ]
    assert told == []


def test_what_people_read_passes_yamllint() -> None:
    """The values, the scenarios and the rules are well-formed, as written."""
    written = [*SCENARIOS, CHART / "values.yaml", CHART / "Chart.yaml", CHART / "files" / "rules.yaml"]
    told = [
        f"{path.name}: {fault}"
        for path in written
        for fault in linter.run(path.read_text(encoding="utf-8"), WRITTEN_STYLE)
    ]
    assert told == []


def test_the_chart_is_of_the_release() -> None:
    """The chart installs the gateway that it was released with."""
    assert f"version: {VERSION}\n" in (CHART / "Chart.yaml").read_text(encoding="utf-8")
    assert f'appVersion: "{VERSION}"\n' in (CHART / "Chart.yaml").read_text(encoding="utf-8")


def test_a_package_renders_as_its_folder_does(tmp_path: Path) -> None:
    """What is pushed to a registry is whole: rules, dashboards and test scripts are in the package."""
    run_helm(NEWEST, "package", str(CHART), "--destination", str(tmp_path))
    path = scenario("monitoring")
    arguments = ("gw", str(tmp_path / f"fal-gateway-{VERSION}.tgz"), "--namespace", "media", "--values", str(path))
    assert parsed(run_helm(NEWEST, "template", *arguments)) == objects(scenario=path)
    assert of_kind("PrometheusRule", scenario=path)


def _named(found: dict[str, Any]) -> tuple[str, str]:
    return found["kind"], found["metadata"]["name"]
