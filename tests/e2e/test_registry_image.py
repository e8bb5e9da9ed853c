"""The image through a registry: pushed, told by its digest, pulled, and still what it was."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from gateway.version import VERSION
from tests.e2e.registry import Registry
from tests.e2e.tools import RUN_FLAGS, run

if TYPE_CHECKING:
    from pathlib import Path


def test_the_image_goes_through_a_registry(image: str, tmp_path: Path) -> None:
    """What comes back under the digest that the registry told runs, and says the same release."""
    with Registry(tmp_path) as registry:
        place = f"{registry.address}/platform/fal-gateway"
        pushed = f"docker://{place}:{VERSION}"
        run("skopeo", "copy", "--dest-tls-verify=false", f"containers-storage:{image}", pushed, timeout_seconds=300)
        told = json.loads(run("skopeo", "inspect", "--tls-verify=false", pushed))
        assert told["Labels"]["org.opencontainers.image.version"] == VERSION
        by_digest = f"{place}@{told['Digest']}"
        run("podman", "pull", "--tls-verify=false", by_digest, timeout_seconds=300)
    try:
        assert run("podman", "run", "--rm", *RUN_FLAGS, by_digest, "--version") == f"fal-gateway {VERSION}\n"
    finally:
        run("podman", "rmi", by_digest)
