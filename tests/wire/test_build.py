"""Which build is asked: the pure one, or the compiled one that stands first among what Python may import from."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.wire.stage import Stage


def test_the_gateway_says_which_build_it_is(stage: Stage) -> None:
    """`make test` asks both builds; were the compiled one not found, it would ask the pure one twice."""
    ready = stage.gateway.wait_for_event("gateway_ready")
    assert ready["compiled"] is ("compiled" in os.environ.get("PYTHONPATH", ""))
