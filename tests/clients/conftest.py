"""The real client in its two places: on Node and in a page, straight before the emulator and through the gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.clients.driver import NodeClient, PageServer, bundle_page
from tests.harness.emulator import Emulator
from tests.harness.gateway import Gateway

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.harness.policy import GatewayKey


@pytest.fixture
def node(gateway: Gateway, key: GatewayKey) -> NodeClient:
    """Return the real client on Node with the gateway as its proxy."""
    return NodeClient(key.secret, proxy=gateway.url)


@pytest.fixture(params=["emulator", "gateway"])
def client(request: pytest.FixtureRequest, key: GatewayKey) -> NodeClient:
    """Return the real client on Node, once without and once with the gateway: it must not see a difference."""
    way = request.getfixturevalue(request.param)
    if isinstance(way, Gateway):
        return NodeClient(key.secret, proxy=way.url)
    assert isinstance(way, Emulator)
    return NodeClient("any-id:any-secret", direct=way.url)


@pytest.fixture(scope="session")
def page() -> Iterator[PageServer]:
    """Serve a page with the real client in it, from an origin of its own."""
    with PageServer(bundle_page()) as server:
        yield server
