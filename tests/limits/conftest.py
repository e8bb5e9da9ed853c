"""Fixtures of the tests of limits: a gateway for each module, with the keys that its tests need."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.harness.gateway import Gateway
from tests.harness.scene import Scene

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.harness.origin import ScriptedOrigin
    from tests.harness.policy import GatewayKey


@pytest.fixture(scope="module")
def lay_out(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Scene]]:
    """Return `lay_out(key, policy, workers=1, **env)`: a scene under this policy, ended after the module."""
    with ExitStack() as stack:

        def build(key: GatewayKey, policy: str, *, workers: int = 1, **env: str) -> Scene:
            def start(origin: ScriptedOrigin) -> Gateway:
                settings = {"FALGW_ORIGIN_OVERRIDES": origin.overrides, **env}
                folder = tmp_path_factory.mktemp("ground")
                return Gateway(folder, policy=policy, env=settings, workers=workers).wait_ready()

            scene = Scene(start, key)
            stack.callback(scene.close)
            return scene

        yield build
