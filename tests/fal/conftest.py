"""What the tests of fal's own API stand on: an emulator of their own, and the log's events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import structlog

from gateway.fal.api.client import FalApi
from tests.fal.stand import KEY, QUICK
from tests.harness.emulator import Emulator
from tests.harness.ports import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gateway.fal.api.client import Patience


@pytest.fixture(scope="session")
def _fal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    with Emulator(tmp_path_factory.mktemp("fal")) as running:
        yield running


@pytest.fixture
def fal(_fal: Emulator) -> Emulator:
    """Return an emulator that remembers nothing and has its settings of the start."""
    _fal.reset()
    return _fal


@pytest.fixture
def open_api() -> Iterator[Callable[..., FalApi]]:
    """Return `open_api(port, …)`: a client of the API at a port of loopback, quick to try again, stopped at the end."""
    opened: list[FalApi] = []

    def start(port: int, *, patience: Patience = QUICK, scheme: str = "http", ca_file: str | None = None) -> FalApi:
        base_url = f"{scheme}://{LOOPBACK}:{port}"
        opened.append(FalApi(KEY, base_url=base_url, patience=patience, ca_file=ca_file))
        return opened[-1]

    yield start
    for api in opened:
        api.stop()


@pytest.fixture
def events() -> Iterator[list[dict[str, Any]]]:
    """Return the list that all events of the log go to, from every thread."""
    with structlog.testing.capture_logs() as captured:
        yield captured  # type: ignore[misc]
