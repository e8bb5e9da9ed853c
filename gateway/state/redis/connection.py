"""One connection to the store: commands go out in order, many in one write, and answers come back in the same order.

The decision it carries: of redis-py only its `Connection` is used, for connecting, TLS, authentication and parsing. Its
pool, retries and timeouts cost a caller 3.4 s where the store is refused and over 12 s where it is silent,
so that none of them is switched on; whatever its parser raises ends the connection under one name.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any, Final

from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import InvalidResponse, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.state.redis.address import RedisAddress

_FAULTS: Final = (
    RedisError,
    OSError,
    EOFError,
    ValueError,  # what the parsers raise where a length is no number, or a line has no end
    TypeError,
    LookupError,
    AttributeError,
    RecursionError,
    MemoryError,
)
"""Everything that garbage was seen, or can be expected, to raise within the library."""

_OLDEST_PROTOCOL: Final = 2  # RESP 2: no HELLO, which a user of an ACL may not be allowed
_DETAIL_CHARACTERS: Final = 200
_CLOSE_SECONDS: Final = 1.0


class LinkError(Exception):
    """The connection is of no use any more. `kind` is a word for a log, `detail` the system's own text or empty."""

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(f"{kind}: {detail}" if detail else kind)
        self.kind = kind
        self.detail = detail


class Refused:
    """An answer by which the store refuses a command: its first word, as `OOM`, `READONLY`, `NOSCRIPT`."""

    __slots__ = ("kind",)

    def __init__(self, kind: str) -> None:
        self.kind: Final = kind


class Link:
    """The connection; made once, connected again and again."""

    def __init__(self, address: RedisAddress) -> None:
        self._connection: Final = _connection(address)
        self._out: list[bytes] = []
        self._wake = asyncio.Event()
        self._end: asyncio.Future[LinkError] = asyncio.get_running_loop().create_future()

    async def connect(self) -> None:
        """Connect and authenticate; LinkError. The caller bounds it in time, and then calls `drop`."""
        self._out.clear()
        self._wake.clear()
        self._end = asyncio.get_running_loop().create_future()
        try:
            await self._connection.connect()
        except _FAULTS as fault:
            raise _named(fault) from fault

    async def request(self, packed: bytes) -> object:
        """Send one command and return its answer, while `run` is not running; LinkError, also where it is refused."""
        try:
            await self._connection.send_packed_command([packed], check_health=False)
            answer: object = await self._connection.read_response()
        except _FAULTS as fault:
            raise _named(fault) from fault
        return answer

    def send(self, packed: bytes) -> None:
        """Send a packed command with all others of this turn of the loop."""
        self._out.append(packed)
        self._wake.set()

    def end(self, fault: LinkError) -> None:
        """Let `run` return this; what comes after that is not heard."""
        if not self._end.done():
            self._end.set_result(fault)

    async def run(self, answered: Callable[[object], None]) -> LinkError:
        """Send what is to be sent and tell every answer, until the connection is of no use; return why.

        A ValueError out of `answered` says that an answer made no sense, and ends it too.
        """
        tasks = [asyncio.create_task(self._write()), asyncio.create_task(self._read(answered))]
        for task in tasks:
            task.add_done_callback(self._ended_by)
        try:
            fault = await self._end
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await self.drop()
        return fault

    async def drop(self) -> None:
        """Close the connection without waiting; harmless when done twice."""
        try:
            await self._connection.disconnect(nowait=True)
        except _FAULTS:
            return  # closed all the same

    async def close(self) -> None:
        """Close the connection and wait until it is, for a second at the most; `run` has ended, or was cancelled."""
        writer: asyncio.StreamWriter | None = self._connection._writer  # noqa: SLF001 (the library aborts none)
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):  # within TLS the store has to answer
                await self._connection.disconnect()
        except (TimeoutError, *_FAULTS):
            if writer is not None:
                writer.transport.abort()
                await asyncio.sleep(0)  # for the loop to close it

    def _ended_by(self, task: asyncio.Task[None]) -> None:
        """Let a bug in one of the tasks out through `run`."""
        fault = None if task.cancelled() else task.exception()
        if fault is not None and not self._end.done():
            self._end.set_exception(fault)

    async def _write(self) -> None:
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                out, self._out = self._out, []
                if not self._connection.is_connected:
                    return  # the library would connect anew by itself; the reader has the reason
                await self._connection.send_packed_command(out, check_health=False)
        except _FAULTS as fault:
            self.end(_named(fault))

    async def _read(self, answered: Callable[[object], None]) -> None:
        try:
            while True:
                answered(await self._answer())
        except _FAULTS as fault:
            self.end(_named(fault))

    async def _answer(self) -> object:
        try:
            answer: object = await self._connection.read_response(timeout=math.inf, disconnect_on_error=False)
        except ResponseError as refusal:
            return Refused(_code(refusal))
        return answer


def _connection(address: RedisAddress) -> Any:  # noqa: ANN401 (the library has no types for half of its methods)
    rest: dict[str, Any] = {
        "db": address.db,
        "username": address.username,
        "password": address.password,
        "socket_timeout": None,
        "socket_connect_timeout": None,
        "protocol": _OLDEST_PROTOCOL,
        "driver_info": None,  # no CLIENT SETINFO, for the same reason
    }
    if address.path:
        return UnixDomainSocketConnection(path=address.path, **rest)
    rest |= {"host": address.host, "port": address.port}
    return SSLConnection(ssl_ca_certs=address.ca_file, **rest) if address.tls else Connection(**rest)


def _named(fault: BaseException) -> LinkError:
    """Return what a fault of the library's comes down to."""
    code = getattr(fault, "status_code", None)
    if code or isinstance(fault, ResponseError):
        return LinkError(_code(fault))
    if isinstance(fault, TimeoutError | RedisTimeoutError):
        return LinkError("no_answer")
    if isinstance(fault, InvalidResponse) or not isinstance(fault, RedisError | OSError | EOFError):
        return LinkError("garbage")
    return LinkError("connection", str(fault)[:_DETAIL_CHARACTERS])


def _code(refusal: BaseException) -> str:
    """Return the first word of a refusal, which is its kind, and never what may stand behind it."""
    code = getattr(refusal, "status_code", None) or str(refusal).partition(" ")[0]
    return (
        code if code.isascii() and code.isalpha() and code.isupper() and len(code) <= len("UNBLOCKEDCLIENT") else "ERR"
    )
