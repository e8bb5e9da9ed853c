"""How many descriptors a process may open, and so how many callers it may have: each exchange needs two."""

from __future__ import annotations

import resource
from typing import Final

_KEPT: Final = 64
"""For the loop, the log, the listener and whatever libraries open."""


def raise_descriptor_limit() -> None:
    """Raise the soft limit on descriptors to the hard one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def most_connections() -> int:
    """Return how many callers may be connected: half of the descriptors, since each may need one to the origin."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(8, (soft - _KEPT) // 2)
