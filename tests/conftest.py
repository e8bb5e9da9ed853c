"""Fixtures of the wire tests: one emulator and one gateway for all, and factories for what a test needs of its own."""

from __future__ import annotations

import itertools
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.harness.client import TIMEOUT_SECONDS, RawClient
from tests.harness.emulator import Emulator
from tests.harness.gateway import Gateway, StartGateway
from tests.harness.origin import OriginConnection, ScriptedOrigin, StartOrigin, answering
from tests.harness.policy import GatewayKey, policy_text
from tests.harness.scene import Scene

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def key() -> GatewayKey:
    """Return the one gateway key that the shared gateway knows, and that `start_gateway` lets in too."""
    return GatewayKey()


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """Run one emulator of fal for the whole session; a test that reads its records calls `reset` first."""
    with Emulator(tmp_path_factory.mktemp("emulator")) as running:
        yield running


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory, emulator: Emulator, key: GatewayKey) -> Iterator[Gateway]:
    """Run one gateway before the emulator for the whole session, with the default policy and `key`."""
    folder = tmp_path_factory.mktemp("gateway")
    with Gateway(folder, policy=policy_text(key), env={"FALGW_ORIGIN_OVERRIDES": emulator.overrides}) as running:
        yield running.wait_ready()


@pytest.fixture
def start_gateway(tmp_path: Path, key: GatewayKey) -> Iterator[StartGateway]:
    """Return `start(origin, *, policy, workers, **env)`: a gateway of the test's own, ready, ended after the test.

    `origin` is a ScriptedOrigin, an Emulator, or a value of FALGW_ORIGIN_OVERRIDES; `env` holds settings.
    """
    numbers = itertools.count(1)
    with ExitStack() as stack:

        def start(
            origin: ScriptedOrigin | Emulator | str, *, policy: str | None = None, workers: int = 1, **env: str
        ) -> Gateway:
            folder = tmp_path / f"gateway-{next(numbers)}"
            overrides = origin if isinstance(origin, str) else origin.overrides
            settings = {"FALGW_ORIGIN_OVERRIDES": overrides, **env}
            started = Gateway(folder, policy=policy or policy_text(key), env=settings, workers=workers)
            return stack.enter_context(started).wait_ready()

        yield start


@pytest.fixture
def start_origin() -> Iterator[StartOrigin]:
    """Return `start(script)`: a scripted origin of the test's own, closed after the test; it answers 200 by default."""
    with ExitStack() as stack:

        def start(script: Callable[[OriginConnection], None] | None = None) -> ScriptedOrigin:
            return stack.enter_context(ScriptedOrigin(script or answering()))

        yield start


@pytest.fixture
def connect() -> Iterator[Callable[..., RawClient]]:
    """Return `connect(gateway, …)`: a raw connection to its data listener, closed after the test."""
    with ExitStack() as stack:

        def open_connection(
            gateway: Gateway, *, timeout_seconds: float = TIMEOUT_SECONDS, receive_buffer_bytes: int | None = None
        ) -> RawClient:
            client = RawClient(gateway.port, timeout_seconds=timeout_seconds, receive_buffer_bytes=receive_buffer_bytes)
            return stack.enter_context(client)

        yield open_connection


@pytest.fixture(scope="module")
def build_scene(tmp_path_factory: pytest.TempPathFactory, key: GatewayKey) -> Iterator[Callable[..., Scene]]:
    """Return `build(*, tls, **env)`: a gateway with these settings before an origin; both end after the module."""
    with ExitStack() as stack:

        def build(*, tls: ssl.SSLContext | None = None, **env: str) -> Scene:
            def start(origin: ScriptedOrigin) -> Gateway:
                settings = {"FALGW_ORIGIN_OVERRIDES": origin.overrides, **env}
                return Gateway(tmp_path_factory.mktemp("scene"), policy=policy_text(key), env=settings).wait_ready()

            scene = Scene(start, key, tls=tls)
            stack.callback(scene.close)
            return scene

        yield build


@pytest.fixture(scope="module")
def usual_scene(build_scene: Callable[..., Scene]) -> Scene:
    """Return the module's scene, its gateway with the settings of the harness."""
    return build_scene()


@pytest.fixture
def scene(usual_scene: Scene) -> Scene:
    """Return the module's scene with new books."""
    return usual_scene.open_books()
