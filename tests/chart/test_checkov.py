"""Checkov, a judge of how safe Kubernetes objects are, finds nothing but what is here with its reason.

It is installed by `make chart-test`, in an environment of its own, because it brings a hundred packages along.
"""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Final

import pytest

from tests.chart.helm import ROOT, SCENARIOS, needs_helm, render

if TYPE_CHECKING:
    from pathlib import Path

CHECKOV: Final = ROOT / ".tools" / "checkov" / "bin" / "checkov"
LEFT_OUT: Final = (
    "CKV_K8S_11",  # a limit of CPU: it would add latency and save nothing
    "CKV_K8S_15",  # imagePullPolicy Always: images are pinned by version or digest
    "CKV_K8S_21",  # the namespace default: whoever installs says which
    "CKV_K8S_43",  # images by digest: of one's own registry, so it is the installer's to say; see values-prod.yaml
)
ACCEPTED: Final = {
    ("CKV_K8S_35", "Deployment"),  # secrets as variables: the gateway reads its URLs so; the fal key may be a file
    ("CKV_K8S_35", "Pod"),  # a gateway key for one run of `helm test`
    ("CKV_K8S_8", "Pod"),  # a pod of `helm test` ends by itself, and nobody calls it: it needs no probes
    ("CKV_K8S_9", "Pod"),
}

pytestmark = [
    needs_helm,
    pytest.mark.skipif(not CHECKOV.exists(), reason="`make chart-test` installs checkov"),
    pytest.mark.timeout(600),
]


def failures(folder: Path) -> set[tuple[str, str]]:
    """Return what checkov finds in a folder: identifiers of checks, with the kind of the object."""
    arguments = ("--skip-download", "--framework", "kubernetes", "--compact", "--quiet", "--output", "json")
    done = subprocess.run(
        [CHECKOV, *arguments, "--skip-check", ",".join(LEFT_OUT), "--directory", folder],
        capture_output=True,
        text=True,
        check=False,
    )
    told = json.loads(done.stdout)
    assert told["summary"]["parsing_errors"] == 0
    return {(found["check_id"], found["resource"].partition(".")[0]) for found in told["results"]["failed_checks"]}


def test_checkov_finds_nothing_unexpected(tmp_path: Path) -> None:
    """No scenario weakens the chart's security, with the NetworkPolicy on; `placement` brings containers of its own."""
    for path in SCENARIOS:
        if path.stem != "placement-values":
            (tmp_path / f"{path.stem}.yaml").write_text(render("networkPolicy.enabled=true", scenario=path))
    assert failures(tmp_path) == ACCEPTED


def test_checkov_can_find_something(tmp_path: Path) -> None:
    """A root that can be written to is told."""
    weak = render("securityContext.readOnlyRootFilesystem=false", scenario=SCENARIOS[-1])
    (tmp_path / "weak.yaml").write_text(weak)
    assert ("CKV_K8S_22", "Deployment") in failures(tmp_path)
