"""The chart goes through an OCI registry and comes out the same, with either helm: how operators will get it."""

from __future__ import annotations

import shutil
import subprocess
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import pytest

from gateway.version import VERSION
from tests.chart.helm import CHART, NAMESPACE, RELEASE, VERSIONS, needs_helm, objects, parsed, run_helm, scenario
from tests.harness.ports import LOOPBACK, ReservedPort
from tests.harness.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    needs_helm,
    pytest.mark.skipif(shutil.which("docker-registry") is None, reason="needs Debian's package docker-registry"),
]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run a registry of the test's own on loopback; return its host and port."""
    folder = tmp_path_factory.mktemp("registry")
    reserved = ReservedPort()
    place = f"{LOOPBACK}:{reserved.number}"
    configuration = folder / "registry.yaml"
    configuration.write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {folder}/data}}}}\n"
        f"http: {{addr: '{place}'}}\n"
    )
    with subprocess.Popen(
        ["docker-registry", "serve", configuration], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        until(lambda: _answers(place), "the registry answers")
        yield place
        process.terminate()
    reserved.release()


def _answers(place: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{place}/v2/", timeout=1) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@pytest.mark.parametrize("version", VERSIONS)
def test_the_chart_comes_out_of_a_registry_as_it_went_in(version: str, registry: str, tmp_path: Path) -> None:
    """Pushed as a package, it renders out of the registry what the folder renders, and is pulled byte for byte."""
    repository = f"{registry}/charts-{version}"
    run_helm(version, "package", str(CHART), "--destination", str(tmp_path))
    package = tmp_path / f"fal-gateway-{VERSION}.tgz"
    run_helm(version, "push", str(package), f"oci://{repository}", "--plain-http")

    pulled = tmp_path / "pulled"
    pulled.mkdir()
    place = (f"oci://{repository}/fal-gateway", "--version", VERSION, "--plain-http")
    run_helm(version, "pull", *place, "--destination", str(pulled))
    assert (pulled / package.name).read_bytes() == package.read_bytes()

    path = scenario("monitoring")
    arguments = ("--namespace", NAMESPACE, "--values", str(path))
    rendered = run_helm(version, "template", RELEASE, *place, *arguments)
    assert parsed(rendered[rendered.index("---") :]) == objects(scenario=path)
