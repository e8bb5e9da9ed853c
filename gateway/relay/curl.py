"""libcurl as the way to the origin: the only module that knows pycurl.

Extends Tornado's curl client: its multi handle stays, its driving is replaced. Tornado's own takes whole bodies, runs
60 microseconds of Python a request and registers each socket with the IOLoop anew; here easy handles are kept and never
reset, callbacks are bound once, libcurl's sockets live in a private epoll set of which the IOLoop watches one
descriptor, and after each batch of socket events every changed transfer is told once (DESIGN 3, PERFORMANCE 3).

No request is executed twice. libcurl silently repeats one whose reused connection died, so the call before a request is
sent (`PREREQFUNCTION`) refuses a second time, and refuses a pooled connection that is closed already; only what was
never sent, or is a free GET, is tried once more, by us, in the open (RELIABILITY 1 and 2).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from time import monotonic
from typing import TYPE_CHECKING, Final

import pycurl
from tornado.curl_httpclient import CurlAsyncHTTPClient
from tornado.ioloop import PeriodicCallback

from gateway.relay.driver import Driver
from gateway.relay.engine import Engine
from gateway.relay.phases import LOOK_SECONDS, Phases
from gateway.relay.sockets import Sockets, reset_on_close

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.relay.transfer import Transfer

_OK: Final[int] = pycurl.PREREQFUNC_OK  # 0, as SOCKOPT_OK is
_ABORT: Final[int] = pycurl.PREREQFUNC_ABORT
_PAUSE_READ: Final[int] = pycurl.READFUNC_PAUSE
_ABORT_READ: Final[int] = pycurl.READFUNC_ABORT
_NO_SEEK: Final[int] = pycurl.SEEKFUNC_FAIL
_READ_BYTES: Final = 65_536
_IDLE_CONNECTION_SECONDS: Final = 20  # younger than any origin's own bound, so that few pooled connections are stale
_CONTENT_KEPT_BYTES: Final = 4096  # a pooled handle keeps no larger content alive


@dataclass(frozen=True, slots=True)
class CurlOptions:
    """What holds for every transfer. `ca_file` None: libcurl's own default."""

    phases: Phases
    ca_file: str | None
    max_transfers: int


class Handle:
    """One easy handle for the life of the client: options set once, callbacks bound once, never reset.

    Three kinds, because options stay: "get" has no content, "post" has it in one piece, "feed" takes it piece by piece.
    """

    __slots__ = ("_client", "_custom", "_fresh", "curl", "kind", "transfer")

    def __init__(self, client: CurlRelay, kind: str) -> None:
        self._client = client
        self.kind = kind
        self.transfer: Transfer | None = None
        self._custom: str | None = None
        self._fresh = False
        self.curl = pycurl.Curl()
        self.curl.handle = self
        self._set_options(client.options)

    def _set_options(self, options: CurlOptions) -> None:
        fixed = {
            pycurl.NOSIGNAL: 1,
            pycurl.PROXY: "",  # the environment's proxies are not for a gateway
            pycurl.NOPROXY: "*",
            pycurl.PATH_AS_IS: 1,  # no dot segment is resolved behind the target check
            pycurl.HTTP_VERSION: pycurl.CURL_HTTP_VERSION_1_1,
            pycurl.CONNECTTIMEOUT_MS: max(1, int(options.phases.connect * 1000)),
            pycurl.MAXAGE_CONN: _IDLE_CONNECTION_SECONDS,
            pycurl.BUFFERSIZE: _READ_BYTES,
            pycurl.TCP_KEEPALIVE: 1,
            pycurl.USERAGENT: "",  # none of its own; the caller's passes
            pycurl.SSLVERSION: pycurl.SSLVERSION_TLSv1_2,
            pycurl.SOCKOPTFUNCTION: self._opened,
            pycurl.PREREQFUNCTION: self._before_send,
            pycurl.HEADERFUNCTION: self._header,
            pycurl.WRITEFUNCTION: self._write,
        }
        if options.ca_file is not None:
            fixed[pycurl.CAINFO] = options.ca_file
        if self.kind == "get":
            fixed[pycurl.HTTPGET] = 1
        else:
            fixed[pycurl.POST] = 1
        if self.kind == "feed":
            fixed[pycurl.READFUNCTION] = self._read
            fixed[pycurl.SEEKFUNCTION] = self._seek
            fixed[pycurl.FORBID_REUSE] = 1  # an origin that answers early closes behind it: nothing may follow there
            fixed[pycurl.UPLOAD_BUFFERSIZE] = _READ_BYTES
        for option, value in fixed.items():
            self.curl.setopt(option, value)

    def load(self, transfer: Transfer, *, fresh: bool) -> None:
        """Set what differs from the request before; `fresh` asks for a connection of its own."""
        request = transfer.request
        self.transfer = transfer
        setopt = self.curl.setopt
        setopt(pycurl.URL, request.url)
        setopt(pycurl.HTTPHEADER, request.lines)
        if self.kind == "post":
            setopt(pycurl.POSTFIELDS, request.content)
        elif self.kind == "feed":
            setopt(pycurl.POSTFIELDSIZE_LARGE, request.length)
        custom = request.method if request.method != ("GET" if self.kind == "get" else "POST") else None
        if custom != self._custom:
            self._custom = custom
            if custom is None:
                self.curl.unsetopt(pycurl.CUSTOMREQUEST)
            else:
                setopt(pycurl.CUSTOMREQUEST, custom)
        if fresh != self._fresh:
            self._fresh = fresh
            setopt(pycurl.FRESH_CONNECT, int(fresh))

    def unload(self) -> None:
        """Let go of the transfer and of content worth mentioning."""
        if (
            self.transfer is not None
            and self.kind == "post"
            and (self.transfer.request.length or 0) > _CONTENT_KEPT_BYTES
        ):
            self.curl.setopt(pycurl.POSTFIELDS, b"")
        self.transfer = None

    # -- callbacks of libcurl: they append and mark, and call nothing of libcurl's but pause() ----------------------
    def _opened(self, fd: int, _purpose: int) -> int:
        self._client.sockets.opened(fd)
        return _OK

    def _before_send(self, _remote_ip: str, _local_ip: str, _remote_port: int, local_port: int) -> int:
        transfer = self.transfer
        if transfer is None or transfer.attempted:  # libcurl would repeat a request that may have been executed
            return _ABORT
        if not self._fresh and self._client.sockets.is_closed(local_port):
            transfer.stale = True
            return _ABORT
        transfer.attempted = True
        transfer.touched = self._client.now
        return _OK

    def _header(self, line: bytes) -> int | None:
        transfer = self.transfer
        return None if transfer is not None and transfer.put_line(line) else -1

    def _write(self, piece: bytes) -> int | None:
        transfer = self.transfer
        if transfer is None:
            return -1
        if transfer.put(piece):
            self.curl.pause(transfer.pauses)
        return None

    def _read(self, most: int) -> bytes | int:
        transfer = self.transfer
        if transfer is None or not transfer.active:
            return _ABORT_READ
        piece = transfer.take(most)
        return _PAUSE_READ if piece is None else bytes(piece)

    @staticmethod
    def _seek(_offset: int, _origin: int) -> int:
        return _NO_SEEK  # content is not kept: it cannot be sent again


class CurlRelay(CurlAsyncHTTPClient):
    """Carries transfers over one multi handle. Belongs to the running loop; whoever makes it calls `close()`."""

    def initialize(self, options: CurlOptions, alarm: Callable[[str], None]) -> None:  # type: ignore[override]
        """Take the options, and whom to tell when libcurl had to be set up anew."""
        self.options = options
        self.sockets = Sockets()
        self.engine = Engine(self, options.phases)
        self.open = self.engine.open  # `Upstream` of the seam
        self._alarm = alarm
        self._handles: dict[Transfer, Handle] = {}
        self._free: dict[str, list[Handle]] = {"get": [], "post": [], "feed": []}
        self._driver = Driver(self._act, self._next_due, self._settle)
        super().initialize(max_clients=0)
        self._set_up_multi()
        self._look = PeriodicCallback(self._give_up_overdue, LOOK_SECONDS * 1000)
        self._look.start()

    def _set_up_multi(self) -> None:
        self._multi.setopt(pycurl.M_MAXCONNECTS, self.options.max_transfers)
        self._multi.setopt(pycurl.M_PIPELINING, pycurl.PIPE_NOTHING)
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._driver.watch)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._driver.due_in)

    # -- what the engine asks for (`Carrier`) -------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """Monotonic seconds as of the last turn."""
        return self._driver.now

    def start(self, transfer: Transfer, *, fresh: bool) -> None:
        """Begin, on a connection of its own where `fresh`."""
        length, content = transfer.request.length, transfer.request.content
        kind = "get" if length is None else "feed" if content is None else "post"
        pool = self._free[kind]
        handle = pool.pop() if pool else Handle(self, kind)
        handle.load(transfer, fresh=fresh)
        self._handles[transfer] = handle
        self._multi.add_handle(handle.curl)
        self._driver.kick()

    def repause(self, transfer: Transfer) -> None:
        """Give libcurl the wanted pause flags."""
        handle = self._handles.get(transfer)
        if handle is None:
            return
        with suppress(pycurl.error):  # it failed while paused; its end is on its way through info_read
            handle.curl.pause(transfer.pauses)
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
        self._release(handle)
        if transfer is not None:
            del self._handles[transfer]
            self.engine.ended(transfer, code)

    def _give_up_overdue(self) -> None:
        self._driver.now = monotonic()
        self.engine.give_up_overdue(self._handles)

    def _start_anew(self) -> None:
        """Replace a dead multi: what was under way on it is lost, what comes next must not be."""
        lost, self._handles = self._handles, {}
        for handle in lost.values():
            handle.curl.close()  # takes it off the multi
        self._multi.close()
        self.sockets.forget()
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
        self.sockets.forget()
        super().close()
        self._driver.close()
