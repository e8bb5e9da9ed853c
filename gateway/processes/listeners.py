"""The two listeners of a gateway, bound before anything else of it exists.

The decision: workers listen by themselves on the port that is reserved here (SO_REUSEPORT), so another gateway on the
same port would silently share its callers; a first bind without that option finds it. The port of a gateway whose
supervisor was killed is free as soon as its workers notice, so an address in use is tried again for a moment.
"""

from __future__ import annotations

import errno
import socket
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gateway.config.settings import Settings

_BACKLOG: Final = 1024
PATIENCE_SECONDS: Final = 1.0
_RETRY_SECONDS: Final = 0.05


class ListenError(OSError):
    """Listeners that cannot be had; one line for each names host, port, settings and reason."""


class BoundSockets:
    """The data port, bound for the workers, and the ops listener, listening."""

    def __init__(self, settings: Settings) -> None:
        """Bind both; ListenError names all that cannot be had."""
        faults: list[str] = []
        deadline = time.monotonic() + PATIENCE_SECONDS
        data = _bind_patiently((settings.host, settings.port), "FALGW_HOST, FALGW_PORT", faults, deadline=deadline)
        ops = _bind_patiently(
            (settings.ops_host, settings.ops_port), "FALGW_OPS_HOST, FALGW_OPS_PORT", faults, deadline=deadline
        )
        if data is None or ops is None:
            raise ListenError("\n".join(faults))
        host, port = data.getsockname()[:2]
        data.close()
        self.reserved: Final = bind(host, port, shared=True)
        self.ops: Final = ops
        self.ops.listen()

    @property
    def address(self) -> str:
        """Where callers connect, as `host:port`."""
        return named(*self.reserved.getsockname()[:2])

    @property
    def ops_address(self) -> str:
        """Where operators connect, as `host:port`."""
        return named(*self.ops.getsockname()[:2])

    def close(self) -> None:
        """Close both, in a process that does not use them: an inherited listener keeps its port taken."""
        self.reserved.close()
        self.ops.close()


def named(host: str, port: int) -> str:
    """Return an address as people write it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _bind_patiently(
    address: tuple[str, int], settings: str, faults: list[str], *, deadline: float
) -> socket.socket | None:
    """Return a bound socket; None where it cannot be had, and add to `faults` why."""
    while True:
        try:
            return bind(*address, shared=False)
        except OSError as fault:
            if fault.errno == errno.EADDRINUSE and time.monotonic() < deadline:
                time.sleep(_RETRY_SECONDS)
                continue
            faults.append(f"cannot listen on {named(*address)} ({settings}): {reason_of(fault)}")
            return None


def reason_of(fault: OSError) -> str:
    """Return why a listener cannot be had, in words."""
    if fault.errno == errno.EADDRINUSE:
        return "the address is in use by another program, perhaps another gateway"
    return (fault.strerror or str(fault)).lower()


def bind(host: str, port: int, *, shared: bool) -> socket.socket:
    """Return a bound socket; `shared`: others of this gateway may bind the same port. OSError where it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock


def listen(host: str, port: int) -> socket.socket:
    """Return a worker's own listening socket: the kernel distributes callers among the workers."""
    sock = bind(host, port, shared=True)
    sock.listen(_BACKLOG)
    sock.setblocking(False)  # noqa: FBT003 (the standard library's signature)
    return sock
