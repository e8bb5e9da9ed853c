"""Turns: socket events and due timers to libcurl's multi in batches, and one look at the results after each.

libcurl's sockets live in a private epoll set; the IOLoop watches that one descriptor. Adding and removing a socket
costs 3 microseconds there against 11 in the IOLoop, and requests that start in one turn share one `socket_action`.
The numbers that cross here are libcurl's stable interface: CURL_POLL_*, CURL_CSELECT_*.
"""

from __future__ import annotations

import asyncio
import select
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from gateway.platform.poller import READ
from gateway.upstream.clock import Clock
from gateway.upstream.socket_buffers import FreeBuffers, WideBuffers

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.platform.poller import Poller
    from gateway.upstream.carrier import CurlCarrier
    from gateway.upstream.handle import Handle
    from gateway.upstream.pooled_sockets import OriginSocket

_EVENTS_A_TURN: Final = 256
_TIMER_SOCKET: Final = -1  # CURL_SOCKET_TIMEOUT
_POLL_REMOVE: Final = 4
_INTEREST: Final = (0, select.EPOLLIN, select.EPOLLOUT, select.EPOLLIN | select.EPOLLOUT)


def _selected(events: int) -> int:
    """Return CURL_CSELECT_* bits for epoll's.

    Writable counts as readable too: libcurl then looks for an answer before it sends more, and an early refusal is not
    lost to the reset that comes behind it.
    """
    broken = events & (select.EPOLLERR | select.EPOLLHUP)
    return (1 if events & select.EPOLLIN else 0) | (3 if events & select.EPOLLOUT else 0) | (4 if broken else 0)


_SELECTED: Final = tuple(_selected(events) for events in range(32))


class Driver:
    """Feeds one multi handle."""

    def __init__(self, poller: Poller, carrier: CurlCarrier, *, before: Callable[[], object]) -> None:
        """Take whose multi handle it is.

        `before` is called ahead of each batch of actions, and the carrier settles behind it: an action for one socket
        may begin any transfer that was added since the last.
        """
        self._poller = poller
        self._before = before
        self._carrier = carrier
        self._loop = asyncio.get_running_loop()
        self._kicked = False
        self._timer: asyncio.TimerHandle | None = None
        self._due_at = 0.0
        self.clock: Final = Clock()
        self.known: Final[set[int]] = set()  # sockets just seen to be alive: what they are registered for still holds
        self.pooled: Final[dict[int, OriginSocket]] = {}  # between two requests, as far as known
        self.free: Final = FreeBuffers()
        self.wide: Final = WideBuffers()
        self.held: Handle | None = None  # its request is in the kernel and may not leave yet
        self.urgent = False  # a transfer holds much that should be told before the next one is read
        self._open_set()

    def _open_set(self) -> None:
        self._epoll = select.epoll()
        self._idle: set[int] = set()  # registered, and of no interest to libcurl just now
        self._interests: dict[int, int] = {}  # what each was last registered for
        self._watched = self._epoll.fileno()
        self._poller.watch(self._watched, READ, self._on_events)
        self._poller.at_end(self._on_end)
        self.faulty = False  # a socket could not be watched: the multi must be given up

    def reset(self) -> None:
        """Begin again with an empty set, for a new multi."""
        self.close()
        self.pooled.clear()
        self.free.clear()
        self.wide.clear()
        self.held = None
        self._open_set()

    def watch(self, what: int, fd: int, _multi: object, _data: object) -> None:
        """Watch, or no longer watch, a socket: libcurl's socket callback, so nothing may escape.

        What libcurl lets go of stays in the set, since it is mostly a pooled connection that the next request takes up:
        no call to the kernel for a request on one, where two would be the rule. An exception here would kill the multi
        for ever; a fault is marked and mended by the owner.
        """
        if what == _POLL_REMOVE:
            self._idle.add(fd)
            return
        self._idle.discard(fd)
        interest = _INTEREST[what & 3]
        if fd in self.known:
            self.known.discard(fd)
            if self._interests.get(fd) == interest:
                return
        try:
            self._register(fd, interest)
        except (OSError, ValueError):
            self.faulty = True

    def _register(self, fd: int, interest: int) -> None:
        try:
            if fd in self._interests:
                self._epoll.modify(fd, interest)
            else:
                self._epoll.register(fd, interest)
        except FileNotFoundError:  # closed since, and opened again under the same number
            self._epoll.register(fd, interest)
        self._interests[fd] = interest

    def opened(self, fd: int) -> None:
        """Note that a number stands for a new socket."""
        self.known.discard(fd)
        self.pooled.pop(fd, None)
        self._interests.pop(fd, None)

    def release(self) -> None:
        """Let the request go whose transfer libcurl acted on last: it has looked for an answer by now."""
        held, self.held = self.held, None
        if held is not None:
            held.release()

    def _on_idle(self, fd: int, events: int, *, kicked: bool) -> None:
        """Take an event of a socket that libcurl has no interest in: a pooled one's origin has closed it, or wrote.

        Others are let go of, unless libcurl may ask for them in this very turn.
        """
        pooled = self.pooled.get(fd)
        if pooled is None:
            if not kicked:
                self._forget(fd)
        elif events == select.EPOLLOUT:  # what it was registered for while its request was sent
            self._epoll.modify(fd, select.EPOLLIN)
            self._interests[fd] = select.EPOLLIN
        else:
            del self.pooled[fd]
            self._forget(fd)
            pooled.retire()

    def _forget(self, fd: int) -> None:
        self._idle.discard(fd)
        self._interests.pop(fd, None)
        try:
            self._epoll.unregister(fd)
        except (FileNotFoundError, OSError):  # closed before: the kernel has dropped it by itself
            return

    def due_in(self, milliseconds: int) -> None:
        """Note libcurl's wish to be called; a timer that is armed already may fire early and asks again."""
        if milliseconds <= 0:
            if milliseconds == 0:
                self.kick()
            return
        when = self.clock.now + milliseconds / 1000  # a little early, never late: the loop's clock is this one
        if self._timer is not None:
            if self._due_at <= when:
                return
            self._timer.cancel()
        self._due_at = when
        self._timer = self._loop.call_at(when, self._on_timer)

    def kick(self) -> None:
        """Let libcurl act once on all that was started or resumed in this turn of the loop."""
        self._kicked = True

    def _on_end(self) -> bool:
        if not self._kicked:
            return False
        self._run()
        return True

    def _run(self) -> None:
        self._kicked = False
        self._take_events(kicked=True)  # what has come is read before more is sent: see `_selected`
        self._before()  # an urgent one's end may have let others in
        self._carrier.act(_TIMER_SOCKET, 0)
        self.release()
        self.known.clear()
        self._carrier.settle()

    def _on_timer(self) -> None:
        self._timer = None
        self._run()
        self.due_in(self._carrier.next_due())

    def _on_events(self, _events: int) -> None:
        self._take_events(kicked=False)
        self._carrier.settle()

    def _take_events(self, *, kicked: bool) -> None:
        """Pass events on."""
        self._before()
        self.clock.tick()
        try:
            ready = self._epoll.poll(0, _EVENTS_A_TURN)
        except (OSError, ValueError):  # the set itself is gone
            self.faulty = True
            return
        for fd, events in ready:
            if fd not in self._idle:
                self._carrier.act(fd, _SELECTED[events & 31])
                if self.held is not None:
                    self.release()
                if self.urgent:  # a window each for all that are ready would be tens of megabytes
                    self.urgent = False
                    self._carrier.settle()
                    self._before()
            else:
                self._on_idle(fd, events, kicked=kicked)

    def close(self) -> None:
        """Stop watching."""
        self._poller.not_at_end(self._on_end)
        with suppress(OSError):  # gone already: that may be why
            self._poller.forget(self._watched)
        with suppress(OSError):
            self._epoll.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._kicked = False
