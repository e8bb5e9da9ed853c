"""What the tests of the relay's parts share: a carrier that obeys, an engine over it, an exchange that writes down."""

from __future__ import annotations

import pytest

from gateway.upstream.transfers import Engine
from tests.upstream.carriers import PHASES, Carrier, Listener


@pytest.fixture
def carrier() -> Carrier:
    """Return a carrier."""
    return Carrier()


@pytest.fixture
def engine(carrier: Carrier) -> Engine:
    """Return the engine over it."""
    return Engine(carrier, PHASES)


@pytest.fixture
def listener() -> Listener:
    """Return an exchange."""
    return Listener()
