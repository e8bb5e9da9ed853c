"""One easy handle for the life of the client: options set once, callbacks bound once, never reset.

`reset()` and the options of a request cost less than a microsecond each; the Python around them in Tornado's own client
takes sixty. No request is executed twice: libcurl silently repeats one whose reused connection died, so the call before
a request is sent (`PREREQFUNCTION`) refuses a second time, and refuses a pooled connection that was retired.

No answer reaches a caller that did not ask for it. An origin may write more than its answer, and libcurl takes what it
finds on a reused connection for the next answer. What arrives while the connection is idle retires it (driver.py). What
OpenSSL has read ahead makes no event, but libcurl takes it directly after it has sent, while the request is still held
in the kernel. What was on its way shows by TCP's acknowledgements: whoever answers a request has received some of it.
Such a connection is closed; the request is sent again where it never left this machine.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

import pycurl

from gateway.upstream.pooled_sockets import reset_on_close
from gateway.upstream.socket_buffers import LOOK_BYTES, WIDE_FROM_BYTES, cap
from gateway.upstream.transfer import WINDOW_BYTES

if TYPE_CHECKING:
    from gateway.upstream.driver import Driver
    from gateway.upstream.options import CurlOptions
    from gateway.upstream.pooled_sockets import OriginSocket, Sockets
    from gateway.upstream.transfer import Transfer

_OK: Final = 0  # CURL_PREREQFUNC_OK and CURL_SOCKOPT_OK
_ABORT: Final = 1  # CURL_PREREQFUNC_ABORT
_REFUSED: Final = -1  # what a callback did not take, to libcurl an error
_PAUSE_READ: Final = 0x10000001  # CURL_READFUNC_PAUSE
_ABORT_READ: Final = 0x10000000  # CURL_READFUNC_ABORT
_NO_SEEK: Final = 1  # CURL_SEEKFUNC_FAIL
_UPLOAD_BYTES: Final = 131_072
_LARGE_BYTES: Final = 65_536  # content of one transfer that is passed on before the next socket is read
_HEAD_BYTES: Final = 16_384  # libcurl's least: it keeps such a buffer for each open request, for its head
_IDLE_CONNECTION_SECONDS: Final = 20  # younger than any origin's own bound, so that few pooled connections are stale
_CONTENT_KEPT_BYTES: Final = 4096  # a pooled handle keeps no larger content alive
_SHORT_BYTES: Final = 4096  # content that libcurl writes at once with the head: its buffer takes both
_UNKNOWN: Final = -1
_ROUND_TRIP_SECONDS: Final = 2.0  # what was on its way when the request was sent has come by then
_UNCOUNTED_BYTES: Final = 512  # more than libcurl and TLS add to what `_least_bytes` counts

_URL: Final[int] = pycurl.URL
_HTTPHEADER: Final[int] = pycurl.HTTPHEADER
_POSTFIELDS: Final[int] = pycurl.POSTFIELDS
_POSTFIELDSIZE_LARGE: Final[int] = pycurl.POSTFIELDSIZE_LARGE
_CUSTOMREQUEST: Final[int] = pycurl.CUSTOMREQUEST
_FRESH_CONNECT: Final[int] = pycurl.FRESH_CONNECT
_ACTIVESOCKET: Final[int] = pycurl.ACTIVESOCKET


class Handle:
    """The handle and its callbacks, which append and mark, and call nothing of libcurl's but pause().

    Three kinds, because options stay: "get" has no content, "post" has it in one piece, "feed" takes it piece by piece.
    """

    __slots__ = (
        "_custom",
        "_driver",
        "_fd",
        "_fresh",
        "_is_unproven",
        "_is_wide",
        "_look_at",
        "_socket",
        "_sockets",
        "curl",
        "kind",
        "transfer",
    )

    def __init__(self, kind: str, options: CurlOptions, driver: Driver, sockets: Sockets) -> None:
        self._driver = driver
        self._sockets = sockets
        self.kind = kind
        self.transfer: Transfer | None = None
        self._custom: str | None = None
        self._fresh = False
        self._fd = _UNKNOWN  # of the connection that the transfer is on, as far as it was found out
        self._socket: OriginSocket | None = None
        self._is_wide = False  # its answer is large: it was asked for a receive buffer that grows
        self._look_at = WIDE_FROM_BYTES  # received by the next look at the buffer
        self._is_unproven = False  # what comes first on a reused connection may be no answer to this request
        self.curl = pycurl.Curl()
        self.curl.handle = self
        self._set_options(options)

    def _set_options(self, options: CurlOptions) -> None:
        fixed = {
            pycurl.NOSIGNAL: 1,
            pycurl.PROXY: "",  # the environment's proxies are not for a gateway
            pycurl.NOPROXY: "*",
            pycurl.PATH_AS_IS: 1,  # no dot segment is resolved behind the target check
            pycurl.HTTP_VERSION: pycurl.CURL_HTTP_VERSION_1_1,
            pycurl.CONNECTTIMEOUT_MS: max(1, int(options.phases.connect * 1000)),
            pycurl.MAXAGE_CONN: _IDLE_CONNECTION_SECONDS,
            pycurl.BUFFERSIZE: WINDOW_BYTES,
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
            fixed[pycurl.UPLOAD_BUFFERSIZE] = _UPLOAD_BYTES
        else:
            fixed[pycurl.UPLOAD_BUFFERSIZE] = _HEAD_BYTES
        for option, value in fixed.items():
            self.curl.setopt(option, value)

    def load(self, transfer: Transfer, *, fresh: bool) -> None:
        """Set what differs from the request before; `fresh` asks for a connection of its own."""
        request = transfer.request
        kind = self.kind
        self.transfer = transfer
        self._fd = _UNKNOWN
        self._socket = None
        self._is_unproven = False
        self._is_wide = False
        self._look_at = WIDE_FROM_BYTES
        setopt = self.curl.setopt
        setopt(_URL, request.url)
        setopt(_HTTPHEADER, request.lines)
        if kind == "post":
            setopt(_POSTFIELDS, request.content)
        elif kind == "feed":
            setopt(_POSTFIELDSIZE_LARGE, request.length)
        custom = request.method if request.method != ("GET" if kind == "get" else "POST") else None
        if custom != self._custom:
            self._custom = custom
            if custom is None:
                self.curl.unsetopt(_CUSTOMREQUEST)
            else:
                setopt(_CUSTOMREQUEST, custom)
        if fresh != self._fresh:
            self._fresh = fresh
            setopt(_FRESH_CONNECT, int(fresh))

    def repause(self, transfer: Transfer) -> None:
        """Give libcurl the wanted pause flags. Not from within a callback."""
        if self._fd < 0:
            self._fd = self.curl.getinfo(_ACTIVESOCKET)
        self._driver.known.add(self._fd)  # it is this transfer's, so no other socket can have its number
        with suppress(pycurl.error):  # it failed while paused; its end is on its way through info_read
            self.curl.pause(transfer.pauses)

    def received_bytes(self) -> int:
        """Return how much was received in all on the connection that the transfer is on; 0: not known."""
        return 0 if self._socket is None else self._socket.received_bytes()

    def pool(self) -> None:
        """Note that libcurl keeps the connection for another request, unless it has closed it."""
        if self._socket is not None:
            self._driver.pooled[self._socket.fd] = self._socket

    def unload(self) -> None:
        """Let go of the transfer and of content worth mentioning."""
        transfer, self.transfer = self.transfer, None
        if self._is_wide and self._socket is not None:
            self._driver.wide.narrow(self._socket)
        if transfer is not None and self.kind == "post" and (transfer.request.length or 0) > _CONTENT_KEPT_BYTES:
            self.curl.setopt(_POSTFIELDS, b"")

    # -- callbacks of libcurl ---------------------------------------------------------------------------------------

    def _opened(self, fd: int, _purpose: int) -> int:
        self._sockets.opened(fd)
        self._driver.opened(fd)
        return _OK

    def _before_send(self, _remote_ip: str, _local_ip: str, _remote_port: int, local_port: int) -> int:
        transfer = self.transfer
        if transfer is None or transfer.attempted:  # libcurl would repeat a request that may have been executed
            return _ABORT
        driver = self._driver
        driver.release()
        found = self._socket = self._sockets.find(local_port)
        if found is not None:
            self._fd = found.fd
            if found.is_used and not self._is_usable(found):
                transfer.stale = True
                return _ABORT
            if not found.is_used:
                driver.free.bound(found)
                found.is_used = True
                found.is_secure = transfer.request.url.startswith("https:")
        transfer.attempted = True
        transfer.touched = driver.clock.now
        return _OK

    def _is_usable(self, found: OriginSocket) -> bool:
        """Return whether a request may go out on a connection that has carried others; within TLS it is held."""
        driver = self._driver
        driver.pooled.pop(found.fd, None)
        if found.is_retired or not found.is_quiet():
            return False
        if found.is_secure:
            try:
                found.hold()
            except OSError:  # reset by the origin
                return False
            driver.held = self
        driver.known.add(found.fd)
        self._is_unproven = True
        return True

    def release(self) -> None:
        """Send what is held; where libcurl has closed the connection, note whether the request can go out again.

        It can if it was shorter than a segment, so that none of it was sent, and if its content is at hand.
        """
        found, transfer = self._socket, self.transfer
        if found is None or transfer is None or found.release(is_last=self._is_written(transfer)):
            return
        if transfer.given == 0 and _least_bytes(transfer) + _UNCOUNTED_BYTES < found.segment_bytes:
            transfer.stale = True

    def _is_written(self, transfer: Transfer) -> bool:
        """Return whether libcurl has written all of the request: it does at once what is short and at hand."""
        content = transfer.request.content
        return self.kind != "feed" and (content is None or len(content) <= _SHORT_BYTES)

    def _is_answer(self, transfer: Transfer, found: OriginSocket) -> bool:
        """Return whether what comes first on a reused connection can be an answer to this request."""
        waiting = found.unacknowledged_bytes()
        if waiting == 0 or waiting < _least_bytes(transfer):
            return True
        if self._driver.held is self and transfer.given == 0 and found.unsent_bytes() > 0:
            reset_on_close(found.fd)
            transfer.stale = True
        return False

    def _header(self, line: bytes) -> int | None:
        transfer = self.transfer
        if self._is_unproven and transfer is not None and self._socket is not None:
            self._is_unproven = False
            is_early = self._driver.clock.now - transfer.touched < _ROUND_TRIP_SECONDS
            if is_early and not self._is_answer(transfer, self._socket):
                return _REFUSED
        return None if transfer is not None and transfer.put_line(line) else _REFUSED

    def _write(self, piece: bytes) -> int | None:
        transfer = self.transfer
        if transfer is None:
            return _REFUSED
        if transfer.put(piece):
            self.curl.pause(transfer.pauses)
        if transfer.window >= _LARGE_BYTES:
            self._driver.urgent = True
        if transfer.received >= self._look_at and self._socket is not None:
            self._look(transfer, self._socket)
        return None

    def _look(self, transfer: Transfer, found: OriginSocket) -> None:
        """Widen the buffer of a long answer, and let none grow for ever."""
        self._look_at = transfer.received + LOOK_BYTES
        if not self._is_wide:
            self._is_wide = True
            self._driver.wide.widen(found)
        cap(found)

    def _read(self, most: int) -> bytes | int:
        transfer = self.transfer
        if transfer is None or not transfer.active:
            return _ABORT_READ
        piece = transfer.take(most)
        return _PAUSE_READ if piece is None else bytes(piece)

    def _seek(self, _offset: int, _origin: int) -> int:
        return _NO_SEEK  # content is not kept: it cannot be sent again


def _least_bytes(transfer: Transfer) -> int:
    """Return a little less than what was written for a request: its own lines and content as given to libcurl.

    TCP acknowledges whole segments, and one is longer than what is left out here.
    """
    request = transfer.request
    content = transfer.given if request.content is None else len(request.content)
    return sum(map(len, request.lines)) + content
