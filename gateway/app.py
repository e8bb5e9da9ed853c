"""The composition root: the only place that knows every concrete class of a worker.

A worker is one event loop with the data listener in front, libcurl behind, and its seat on the board in between.
"""

from __future__ import annotations

import asyncio
import resource
import socket
import ssl
from pathlib import Path
from time import time
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import structlog
from tornado.ioloop import PeriodicCallback

from gateway.admission import Door
from gateway.desk import Desk
from gateway.gate import Gatehouse
from gateway.ingress.patience import Patience
from gateway.ingress.server import CallerServer
from gateway.metering.meter import Meter
from gateway.pressure import LOOK_SECONDS, MemoryPressure, own_group
from gateway.protocol.fields import CallerFields, OriginFields
from gateway.protocol.reply import Replies
from gateway.relay.curl import CurlRelay
from gateway.relay.options import CurlOptions
from gateway.relay.phases import Phases
from gateway.state.local import LocalStore
from gateway.turnstile import Turnstile
from gateway.version import VERSION
from gateway.waiting import WaitingRoom

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.metering.board import Board, Seat
    from gateway.metering.log import Log
    from gateway.ruleset import Ruleset
    from gateway.settings import Settings
    from gateway.state.jobs import JobTable
    from gateway.state.local import Quotas
    from gateway.turns import Turns

_BACKLOG: Final = 1024
_DESCRIPTORS_KEPT: Final = 64
"""For the loop, the log, the listener and whatever libraries open."""

_SYSTEM_CA_FILES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
)


class Worker:
    """One worker's parts, made within its running loop."""

    def __init__(  # noqa: PLR0913 (all that a worker shares with others, given once)
        self,
        turns: Turns,
        settings: Settings,
        rules: Ruleset,
        *,
        board: Board,
        seat: Seat,
        log: Log,
        jobs: JobTable,
        quotas: Quotas,
    ) -> None:
        self._relay = CurlRelay(force_instance=True, turns=turns, options=_curl_options(settings), alarm=_alarm)
        later = asyncio.get_running_loop().call_later
        meter = Meter(seat.region, board.endpoints, emit=log.exchange)
        log.count_to(meter.count_dropped)
        desk = Desk(
            door=Door(rules, max_body_bytes=settings.max_body_bytes, find_job=jobs.find),
            upstream=self._relay.engine,
            meter=meter,
            to_origin=OriginFields(_own_fields(settings)),
            to_caller=CallerFields(),
            replies=Replies(rules.cors_origins),
            origins=_origins(settings),
            remember_job=jobs.remember,
            turnstile=Turnstile(
                local=LocalStore(quotas, seat=board.workers.index(seat)),
                shared=None,
                on_loss=rules.on_quota_loss,
                counts=meter,
                room=WaitingRoom(later),
                later=later,
            ),
            trusted_proxies=settings.trusted_proxies,
            later=later,
            wall=time,
        )
        pressure = MemoryPressure(own_group())
        self._look = PeriodicCallback(pressure.look, LOOK_SECONDS * 1000)
        self._look.start()
        self.gate = Gatehouse(desk, max_inflight=settings.max_inflight, pressure=pressure)
        self.server = CallerServer(
            self.gate,
            turns,
            patience=Patience(settings.client_header_timeout, settings.client_idle_timeout, settings.client_least_rate),
            max_connections=most_connections(),
        )

    @property
    def is_busy(self) -> bool:
        """Whether an exchange is under way, or an answer not yet taken by its caller."""
        return self.gate.inflight > 0 or self.server.is_busy

    def drain(self) -> None:
        """Take no more requests; those under way run on."""
        self.gate.draining = True
        self.server.drain()

    def close(self) -> int:
        """Cut what is still open; returns how many exchanges that were."""
        self._look.stop()
        cut = self.gate.stop()
        self.server.close_all()
        self._relay.close()
        return cut


def _alarm(event: str) -> None:
    structlog.get_logger().error(event)


def _curl_options(settings: Settings) -> CurlOptions:
    phases = Phases(settings.connect_timeout, settings.first_byte_timeout, settings.idle_timeout)
    ca_file = str(settings.ca_file) if settings.ca_file else _system_ca_file()
    return CurlOptions(phases=phases, ca_file=ca_file, max_transfers=settings.max_inflight + 1)


def _system_ca_file() -> str | None:
    """Return the system's CA bundle: libcurl comes with an OpenSSL of its own, which looks where nothing is."""
    known = (ssl.get_default_verify_paths().cafile, *_SYSTEM_CA_FILES)
    return next((path for path in known if path and Path(path).is_file()), None)


def _own_fields(settings: Settings) -> tuple[bytes, ...]:
    """Return the field lines that every request to the origin gets; `name:` takes out one of libcurl's own."""
    key = settings.fal_key.get_secret_value() if settings.fal_key else ""
    return (
        b"authorization: Key " + key.encode(),
        b"x-fal-client-proxy: fal-gateway/" + VERSION.encode(),
        b"via: 1.1 fal-gateway",
        b"expect:",
    )


def _origins(settings: Settings) -> Mapping[str, str]:
    return MappingProxyType(
        {host: f"{base.scheme}://{base.netloc}{base.prefix}" for host, base in settings.origin_overrides.items()}
    )


def raise_descriptor_limit() -> None:
    """Raise the soft limit on descriptors to the hard one: each exchange needs two."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def most_connections() -> int:
    """Return how many callers may be connected: half of the descriptors, since each may need one to the origin."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(8, (soft - _DESCRIPTORS_KEPT) // 2)


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
    """Return a worker's own listening socket: the kernel shares callers out among the workers (PERFORMANCE 4)."""
    sock = bind(host, port, shared=True)
    sock.listen(_BACKLOG)
    sock.setblocking(False)  # noqa: FBT003 (the standard library's signature)
    return sock
