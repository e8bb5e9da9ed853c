"""Carries transfers over libcurl's multi handle: each turn's work on it, and one easy handle for each transfer.

Tornado's client runs 60 microseconds of Python a request and registers each socket with the IOLoop again; here easy
handles are kept, libcurl's sockets live in a private epoll set of which the IOLoop watches one descriptor, and after
each batch of socket events every changed transfer is told once. Only what was never sent, or is a free GET, is tried
once more, by us, in the open.

Apart from curl.py, since what stands on a class of Tornado's cannot be compiled, and this runs for each request.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import pycurl

from gateway.upstream.driver import Driver
from gateway.upstream.handle import Handle
from gateway.upstream.overhead import Overhead
from gateway.upstream.pooled_sockets import Sockets, reset_on_close
from gateway.upstream.transfers import Carrier, Engine

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.platform.poller import Poller
    from gateway.upstream.options import CurlOptions
    from gateway.upstream.transfer import Transfer

_ACTIVESOCKET: Final[int] = pycurl.ACTIVESOCKET


class CurlCarrier(Carrier):
    """The handles of one multi, which is given up and replaced where it broke down."""

    def __init__(
        self,
        poller: Poller,
        options: CurlOptions,
        make_multi: Callable[[], Any],
        alarm: Callable[[str], None],
        before: Callable[[], object],
    ) -> None:
        """Take what watches sockets, the options, and what makes a `pycurl.CurlMulti`, the first one too.

        `alarm` is told when libcurl had to be set up again; `before` is called ahead of whatever may send something.
        """
        self._options = options
        self._make_multi = make_multi
        self._alarm = alarm
        self.sockets: Final = Sockets()
        self.handles: dict[Transfer, Handle] = {}
        self._free: dict[str, list[Handle]] = {"get": [], "post": [], "feed": []}
        self.driver: Final = Driver(poller, self, before=before)
        self.clock = self.driver.clock
        self.engine: Final = Engine(self, options.phases)
        self._overhead = Overhead(self._received_bytes)
        self._multi = self._new_multi()

    def _new_multi(self) -> Any:  # noqa: ANN401 (pycurl's class, which is not typed)
        multi = self._make_multi()
        multi.setopt(pycurl.M_MAXCONNECTS, self._options.max_transfers)
        multi.setopt(pycurl.M_PIPELINING, pycurl.PIPE_NOTHING)
        multi.setopt(pycurl.M_SOCKETFUNCTION, self.driver.watch)
        multi.setopt(pycurl.M_TIMERFUNCTION, self.driver.due_in)
        return multi

    # -- what the engine asks for (`Carrier`) -------------------------------------------------------------------------

    def start(self, transfer: Transfer, *, fresh: bool) -> None:
        """Begin, on a connection of its own where `fresh`."""
        length, content = transfer.request.length, transfer.request.content
        kind = "get" if length is None else "feed" if content is None else "post"
        pool = self._free[kind]
        handle = pool.pop() if pool else Handle(kind, self._options, self.driver, self.sockets)
        handle.load(transfer, fresh=fresh)
        self.handles[transfer] = handle
        self._multi.add_handle(handle.curl)
        self.driver.kick()

    def repause(self, transfer: Transfer) -> None:
        """Give libcurl the wanted pause flags."""
        handle = self.handles.get(transfer)
        if handle is None:
            return
        handle.repause(transfer)
        self.driver.kick()

    def drop(self, transfer: Transfer) -> None:
        """End at once; by a reset where content is missing, so that the request never looks whole."""
        handle = self.handles.pop(transfer, None)
        if handle is None:
            return
        if not transfer.sent_whole:
            reset_on_close(handle.curl.getinfo(_ACTIVESOCKET))
        self._multi.remove_handle(handle.curl)
        self._release(handle)

    def _release(self, handle: Handle) -> None:
        handle.unload()
        self._free[handle.kind].append(handle)

    # -- what the driver asks for, each turn --------------------------------------------------------------------------

    def next_due(self) -> int:
        """Return in how many milliseconds libcurl wants to be called; -1: not by itself."""
        return int(self._multi.timeout())

    def act(self, fd: int, selected: int) -> None:
        """Let libcurl act on a socket's events (CURL_CSELECT_*), or, for the number -1, on all that is due."""
        try:
            self._multi.socket_action(fd, selected)
        except pycurl.error:  # the multi is dead (code 11), or was given a socket that it no longer knows
            self.driver.faulty = True

    def settle(self) -> None:
        """Take the transfers that have ended, and tell all exchanges what has come."""
        if self.driver.faulty:
            self._start_anew()
        left = 1
        while left:
            left, ended, failed = self._multi.info_read()
            for curl in ended:
                self._end(curl.handle, 0)
            for curl, code, _text in failed:
                self._end(curl.handle, code)
        self.engine.tell()

    def _end(self, handle: Handle, code: int) -> None:
        transfer = handle.transfer
        self._multi.remove_handle(handle.curl)
        if code == 0:
            handle.pool()
        self._release(handle)
        if transfer is not None:
            del self.handles[transfer]
            self.engine.ended(transfer, code)

    def _start_anew(self) -> None:
        """Replace a dead multi: what was under way on it is lost, what comes next must not be."""
        lost, self.handles = self.handles, {}
        for handle in lost.values():
            handle.curl.close()  # takes it off the multi
        self._multi.close()
        self.sockets.forget()
        self.driver.reset()
        self._multi = self._new_multi()
        self._alarm("relay_rebuilt")
        self.engine.lost(lost)

    # -- looked at from time to time ----------------------------------------------------------------------------------

    def look(self) -> None:
        """Give up the transfers that take too long, and those whose origin sends more than it should."""
        self.clock.tick()
        self.engine.give_up_overdue(self.handles)
        self.engine.give_up_excessive(self._overhead.excessive(self.handles, self.clock.now))

    def _received_bytes(self, transfer: Transfer) -> int:
        return self.handles[transfer].received_bytes()

    def close_handles(self) -> None:
        """End every transfer without a word; the multi is closed by whoever made it, then `close` is called."""
        for handle in chain(self.handles.values(), *self._free.values()):
            handle.curl.close()
        self.handles.clear()
        self.sockets.forget()

    def close(self) -> None:
        """Watch no more."""
        self.driver.close()
