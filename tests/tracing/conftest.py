"""What the tests of traces share: a receiver of spans."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.harness.collector import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    """Run one receiver for the module."""
    with Collector() as running:
        yield running
