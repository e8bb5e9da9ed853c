"""One emulator for all of its tests, forgotten clean before each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.emulator.stand import Stand

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def stand() -> Iterator[Stand]:
    """Run one emulator for the session."""
    running = Stand()
    yield running
    assert running.end() == 0


@pytest.fixture
def fal(stand: Stand) -> Stand:
    """Return the emulator as it was at its start."""
    stand.control("reset", {})
    return stand
