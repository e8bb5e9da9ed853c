"""Fixtures of the tests of money: an emulator of their own, with their prices, and markets before it."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.harness.emulator import Emulator
from tests.money.market import PRICES, Market

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="package")
def _fal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    with Emulator(tmp_path_factory.mktemp("fal")) as running:
        yield running


@pytest.fixture(scope="module")
def fal(_fal: Emulator) -> Emulator:
    """Return an emulator with the market's prices, which remembers nothing of the modules before."""
    _fal.reset()
    _fal.settings(prices=PRICES)
    return _fal


@pytest.fixture(scope="module")
def open_market(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Market]]:
    """Return `open(origin, policy, *, workers, url, **env)`: a market that is closed after the module."""
    with ExitStack() as stack:

        def start(origin: Emulator | str, policy: str, **parts: object) -> Market:
            overrides = origin if isinstance(origin, str) else origin.overrides
            market = Market(tmp_path_factory.mktemp("market"), overrides, policy, **parts)  # type: ignore[arg-type]
            return stack.enter_context(market)

        yield start
