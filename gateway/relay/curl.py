"""libcurl as the way to the origin: this module drives its multi handle, handle.py its easy handles.

Extends Tornado's curl client: its multi handle stays, its driving is replaced. Tornado's own takes whole bodies, runs
60 microseconds of Python a request and registers each socket with the IOLoop anew; here easy handles are kept,
libcurl's sockets live in a private epoll set of which the IOLoop watches one descriptor, and after each batch of socket
events every changed transfer is told once. Only what was never sent, or is a free GET, is
tried once more, by us, in the open.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

import pycurl
from tornado.curl_httpclient import CurlAsyncHTTPClient
from tornado.ioloop import PeriodicCallback

from gateway.relay.driver import Driver
from gateway.relay.engine import Engine
from gateway.relay.handle import Handle
from gateway.relay.overhead import Overhead
from gateway.relay.phases import LOOK_SECONDS
from gateway.relay.sockets import Sockets, reset_on_close

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.relay.options import CurlOptions
    from gateway.relay.transfer import Transfer
    from gateway.turns import Turns


class CurlRelay(CurlAsyncHTTPClient):
    """Carries transfers over one multi handle. Belongs to the running loop; whoever makes it calls `close()`."""

    def initialize(  # type: ignore[override]
        self, turns: Turns, options: CurlOptions, alarm: Callable[[str], None], before: Callable[[], object]
    ) -> None:
        """Take what watches sockets, the options, and whom to tell when libcurl had to be set up anew.

        `before` is called ahead of whatever may send something.
        """
        self._options = options
        self._sockets = Sockets()
        self._alarm = alarm
        self._handles: dict[Transfer, Handle] = {}
        self._free: dict[str, list[Handle]] = {"get": [], "post": [], "feed": []}
        self._driver = Driver(turns, self._act, self._next_due, before=before, after=self._settle)
        self.clock = self._driver.clock
        self.engine = Engine(self, options.phases)
        self._overhead = Overhead(self._received_bytes)
        self.open = self.engine.open  # `Upstream` of the seam
        super().initialize(max_clients=0)
        self._forget_tornados_timer()
        self._set_up_multi()
        self._look = PeriodicCallback(self._give_up_overdue, LOOK_SECONDS * 1000)
        self._look.start()

    def _forget_tornados_timer(self) -> None:
        """Cancel the call that Tornado has scheduled: it would take the ends of transfers, and repeat itself."""
        if self._timeout is not None:
            self.io_loop.remove_timeout(self._timeout)
            self._timeout = None

    def _set_up_multi(self) -> None:
        self._multi.setopt(pycurl.M_MAXCONNECTS, self._options.max_transfers)
        self._multi.setopt(pycurl.M_PIPELINING, pycurl.PIPE_NOTHING)
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._driver.watch)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._driver.due_in)

    # -- what the engine asks for (`Carrier`) -------------------------------------------------------------------------

    def start(self, transfer: Transfer, *, fresh: bool) -> None:
        """Begin, on a connection of its own where `fresh`."""
        length, content = transfer.request.length, transfer.request.content
        kind = "get" if length is None else "feed" if content is None else "post"
        pool = self._free[kind]
        handle = pool.pop() if pool else Handle(kind, self._options, self._driver, self._sockets)
        handle.load(transfer, fresh=fresh)
        self._handles[transfer] = handle
        self._multi.add_handle(handle.curl)
        self._driver.kick()

    def repause(self, transfer: Transfer) -> None:
        """Give libcurl the wanted pause flags."""
        handle = self._handles.get(transfer)
        if handle is None:
            return
        handle.repause(transfer)
        self._driver.kick()

    def drop(self, transfer: Transfer) -> None:
        """End at once; by a reset where content is missing, so that the request never looks whole."""
        handle = self._handles.pop(transfer, None)
        if handle is None:
            return
        if not transfer.sent_whole:
            reset_on_close(handle.curl.getinfo(pycurl.ACTIVESOCKET))
        self._multi.remove_handle(handle.curl)
        self._release(handle)

    def count_connections(self) -> int:
        """Return how many connections to origins are open, idle ones too; the kernel is asked about each."""
        return self._sockets.count_open()

    def _release(self, handle: Handle) -> None:
        handle.unload()
        self._free[handle.kind].append(handle)

    # -- turns (Tornado's own names where libcurl calls back) ---------------------------------------------------------

    def _next_due(self) -> int:
        return int(self._multi.timeout())

    def _act(self, fd: int, selected: int) -> None:
        try:
            self._multi.socket_action(fd, selected)
        except pycurl.error:  # the multi is dead (code 11), or was given a socket that it no longer knows
            self._driver.faulty = True

    def _settle(self) -> None:
        if self._driver.faulty:
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
            del self._handles[transfer]
            self.engine.ended(transfer, code)

    def _give_up_overdue(self) -> None:
        self.clock.tick()
        self.engine.give_up_overdue(self._handles)
        self.engine.give_up_excessive(self._overhead.excessive(self._handles, self.clock.now))

    def _received_bytes(self, transfer: Transfer) -> int:
        return self._handles[transfer].received_bytes()

    def _start_anew(self) -> None:
        """Replace a dead multi: what was under way on it is lost, what comes next must not be."""
        lost, self._handles = self._handles, {}
        for handle in lost.values():
            handle.curl.close()  # takes it off the multi
        self._multi.close()
        self._sockets.forget()
        self._driver.reset()
        self._multi = pycurl.CurlMulti()
        self._set_up_multi()
        self._alarm("relay_rebuilt")
        self.engine.lost(lost)

    def close(self) -> None:
        """End every transfer without a word and let go of libcurl."""
        self._look.stop()
        for handle in (*self._handles.values(), *chain.from_iterable(self._free.values())):
            handle.curl.close()
        self._handles.clear()
        self._sockets.forget()
        super().close()
        self._driver.close()
