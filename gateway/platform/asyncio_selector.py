"""A worker's event loop: asyncio's, waiting in `Poller`.

asyncio takes any selector (`asyncio.SelectorEventLoop`); this one tells callers' and libcurl's sockets while it waits.
"""

from __future__ import annotations

import asyncio
import math
import selectors
from typing import TYPE_CHECKING, Any

from gateway.platform.poller import READ, WRITE, Poller

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

_MILLISECOND = 1e-3


class PollerSelector(selectors.BaseSelector):
    """`selectors.EpollSelector`, over `Poller`."""

    def __init__(self, poller: Poller) -> None:
        self._poller = poller
        self._keys: dict[int, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:  # noqa: ANN401 (asyncio's)
        """Watch a file object for asyncio."""
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        if fd in self._keys:
            raise KeyError(fd)
        self._poller.register(fd, _mask(events))
        key = self._keys[fd] = selectors.SelectorKey(fileobj, fd, events, data)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:  # noqa: ANN401 (asyncio's)
        """Watch it no longer."""
        key = self._keys.pop(fileobj if isinstance(fileobj, int) else fileobj.fileno())
        try:
            self._poller.unregister(key.fd)
        except OSError:  # closed before: the kernel has dropped it by itself
            return key
        return key

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait, tell callers and libcurl, and return what is asyncio's."""
        wait = -1.0 if timeout is None else math.ceil(max(timeout, 0.0) / _MILLISECOND) * _MILLISECOND
        ready = []
        for fd, events in self._poller.take(wait):
            key = self._keys.get(fd)
            if key is not None:
                ready.append((key, _told(events) & key.events))
        return ready

    def get_map(self) -> Mapping[int, selectors.SelectorKey]:  # type: ignore[override]
        """Return what is watched for asyncio, by descriptor."""
        return self._keys

    def close(self) -> None:
        """Watch nothing any more."""
        self._keys.clear()
        self._poller.close()


def _told(events: int) -> int:
    """Return asyncio's word for epoll's; what is broken is both readable and writable."""
    return (selectors.EVENT_WRITE if events & ~READ else 0) | (selectors.EVENT_READ if events & ~WRITE else 0)


def _mask(events: int) -> int:
    return (READ if events & selectors.EVENT_READ else 0) | (WRITE if events & selectors.EVENT_WRITE else 0)


def run(main: Callable[[Poller], Coroutine[Any, Any, Any]]) -> Any:  # noqa: ANN401 (whatever it returns)
    """Run a coroutine on a loop over a new `Poller`, which it is given."""
    poller = Poller()
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(PollerSelector(poller))) as runner:
        return runner.run(main(poller))
