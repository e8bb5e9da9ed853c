"""Fixtures: the origin as a process."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from benchmarks.origin import Origin
from benchmarks.route import Route

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[Origin]:
    """Run an origin of the test's own."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    with Origin(tmp_path, cores=(0,)) as running:
        yield running


@pytest.fixture
def direct(origin: Origin) -> Route:
    """Return the way to the origin with nothing in between."""
    return Route(origin.port, "none", prefix="", path_only=True)
