"""How much the kernel may keep for one connection to an origin while its caller, or the origin, does not read.

Left to itself the kernel lets a receive buffer grow to several megabytes and keeps as much to send. Callers that stop
reading would hold that for each of their exchanges, outside of this process's own memory. A small buffer for good would
limit the speed at a distance: it carries one fill a round trip. So the first few connections of a worker are left to
the kernel, which suits a worker that is not crowded. Each further one has a small buffer, and a larger one while an
answer is long of which the caller has read some, as long as few have. docs/performance.md has the figures.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gateway.upstream.pooled_sockets import OriginSocket

RECEIVE_BYTES: Final = 98_304
"""Asked for; the kernel doubles it for its own needs (socket(7))."""

UNSENT_BYTES: Final = 262_144
"""What waits to be sent beside what is under way; unlike SO_SNDBUF it does not bound the speed (tcp(7))."""

WIDE_FROM_BYTES: Final = 524_288
"""More than what is taken for a caller that reads nothing: its window here and what waits in its own socket."""

_WIDE_BYTES: Final = 1_048_576  # asked for; the kernel gives no more than net.core.rmem_max

MOST_WIDE: Final = 32
"""Connections of a worker with a larger buffer, which the kernel may let grow further (tcp_rmem[2], often 6 MiB)."""


LOOK_BYTES: Final = 524_288
"""Received between two looks at a buffer that the kernel lets grow."""

MOST_BYTES: Final = 6_291_456
"""From this size on, by the kernel's count, a buffer grows no further, whatever `tcp_rmem[2]` allows: some systems set
32 MiB, which 48 callers who read fast and then stall would hold for each."""

MOST_FREE: Final = 16
"""Connections of a worker whose receive buffer is left to the kernel from the first byte on, up to `tcp_rmem[2]`."""


def cap(found: OriginSocket) -> None:
    """Let a buffer that is large by now grow no further."""
    with suppress(OSError):  # reset by the origin
        if found.receive_buffer_bytes() >= MOST_BYTES:
            found.stop_growing()


class FreeBuffers:
    """Which connections have a receive buffer of the kernel's own choice, for as long as they are open."""

    def __init__(self) -> None:
        self._free: list[OriginSocket] = []

    def bound(self, found: OriginSocket) -> None:
        """Bound the buffers of a connection that no request has gone out on yet.

        Not before it is connected: the size of the receive buffer at that moment limits its window for good.
        """
        with suppress(OSError):  # reset by the origin
            found.bound_sending(UNSENT_BYTES)
            if not self._leaves(found):
                found.bound_receiving(RECEIVE_BYTES)

    def _leaves(self, found: OriginSocket) -> bool:
        """Return whether this connection's receive buffer is left to the kernel."""
        if len(self._free) >= MOST_FREE:
            self._free = [one for one in self._free if one.is_open()]
        if len(self._free) >= MOST_FREE:
            return False
        found.is_free = True
        self._free.append(found)
        return True

    def clear(self) -> None:
        """Forget all: they have been closed."""
        self._free.clear()


class WideBuffers:
    """Which connections have a larger receive buffer for now."""

    def __init__(self) -> None:
        self._wide: set[OriginSocket] = set()

    def widen(self, found: OriginSocket) -> None:
        """Give a connection a larger receive buffer, where few have one."""
        if not found.is_free and len(self._wide) < MOST_WIDE:
            self._wide.add(found)
            with suppress(OSError):  # a kernel before 5.16 cannot unlock; or the connection has ended
                found.widen(_WIDE_BYTES)

    def narrow(self, found: OriginSocket) -> None:
        """Bound it again: its answer has ended."""
        if found in self._wide:
            self._wide.discard(found)
            with suppress(OSError):  # closed with its answer
                found.bound_receiving(RECEIVE_BYTES)

    def clear(self) -> None:
        """Forget all: they have been closed."""
        self._wide.clear()
