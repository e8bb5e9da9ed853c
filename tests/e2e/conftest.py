"""Fixtures: the image, built once; gateways and an emulator out of it; an origin whose stream waits to be read."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from gateway.version import VERSION
from tests.e2e.container import ContainedEmulator, ContainedGateway
from tests.e2e.stream import PacedStream
from tests.e2e.tools import BASE, CERTIFICATES, IMAGE, PLACE, exists, run
from tests.harness.policy import policy_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.harness.origin import StartOrigin
    from tests.harness.policy import GatewayKey

BUILD_SECONDS = 1200.0


@pytest.fixture(scope="session")
def image() -> str:
    """Build the image out of this tree, on a base that was made here, tagged by its release too; return its name.

    The machine's certificates are lent to the build: its network may be one that signs for itself.
    """
    if not exists(BASE):
        run("podman", "import", str(PLACE / "base.tar"), BASE, timeout_seconds=BUILD_SECONDS)
    run(
        *("buildah", "build", "--isolation=chroot", "--layers", f"--volume={CERTIFICATES}:{CERTIFICATES}:ro"),
        *(f"--build-arg=BASE={BASE}", "--file=deploy/image/Dockerfile", f"--tag={IMAGE}"),
        *(f"--tag={IMAGE}:{VERSION}", "."),
        timeout_seconds=BUILD_SECONDS,
    )
    return IMAGE


@pytest.fixture(scope="session")
def contained_emulator(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ContainedEmulator]:
    """Run the emulator that is in the image, for the whole session."""
    with ContainedEmulator(tmp_path_factory.mktemp("emulator") / image.rpartition("/")[2]) as running:
        yield running


@pytest.fixture
def start_container(image: str, tmp_path: Path, key: GatewayKey) -> Iterator[Callable[..., ContainedGateway]]:
    """Return `start(overrides, *options, **env)`: a gateway out of the image, ready, ended after the test."""
    with ExitStack() as stack:

        def start(overrides: str, *options: str, **env: str) -> ContainedGateway:
            settings = {"FALGW_ORIGIN_OVERRIDES": overrides, **env}
            folder = tmp_path / image.rpartition("/")[2]
            gateway = ContainedGateway(folder, policy=policy_text(key), env=settings, options=options)
            gateway = stack.enter_context(gateway)
            gateway.wait_ready()
            return gateway

        yield start


@pytest.fixture
def paced(start_origin: StartOrigin) -> Iterator[PacedStream]:
    """Return an origin whose stream's events come one by one, each when the one before it has been read."""
    stream = PacedStream(start_origin)
    yield stream
    stream.release()
