"""The ops listener: `/livez`, `/readyz`, `/metrics` and nothing else, in a process of its own.

The decision: it reads the scoreboard and never asks a worker, so it answers while every worker is busy, draining or
being restarted, and a flood of scrapes costs the data path nothing. Plain Tornado handlers, because nothing here is
hot.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from tornado.httpserver import HTTPServer
from tornado.web import Application, HTTPError, RequestHandler

from gateway.platform.signals import call_on_stop
from gateway.telemetry.metrics.exposition import expose
from gateway.telemetry.metrics.ledger_health import LedgerHealth
from gateway.telemetry.metrics.process_stats import ProcessTable

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from gateway.telemetry.metrics.exposition import Reading
    from gateway.telemetry.metrics.scoreboard import Scoreboard

HEAD_BYTES: Final = 16_384
BODY_BYTES: Final = 1_024
IDLE_SECONDS: Final = 60
"""A connection that asks for nothing for so long is closed; longer than any usual scrape interval is not needed."""


class OpsHandler(RequestHandler):
    """What all answers here share: JSON errors, no cache, no name of the server."""

    def initialize(self, *, scoreboard: Scoreboard, readings: Callable[[], list[Reading]]) -> None:
        """Take the scoreboard to read, and what gives families that are not on it."""
        self.scoreboard = scoreboard
        self.readings = readings

    def set_default_headers(self) -> None:
        """Say nothing of the server, and keep caches out."""
        self.clear_header("Server")
        self.set_header("Cache-Control", "no-store")

    def compute_etag(self) -> None:
        """Have no entity tags: a 304 is of no use to a probe."""

    def write_error(self, status_code: int, **_kwargs: Any) -> None:  # noqa: ANN401 - Tornado's signature
        """Answer an error as JSON."""
        self.finish({"status": HTTPStatus(status_code).phrase.lower()})


class LiveHandler(OpsHandler):
    """`/livez`: this process answers."""

    def get(self) -> None:
        """Answer 200, always."""
        self.write({"status": "ok"})

    head = get


class ReadyHandler(OpsHandler):
    """`/readyz`: whether requests should be sent to this gateway now."""

    def get(self) -> None:
        """Answer 200 while at least one worker is ready and nothing drains, else 503."""
        readiness = self.scoreboard.readiness()
        if readiness.status != "ready":
            self.set_status(HTTPStatus.SERVICE_UNAVAILABLE)
        self.write(
            {
                "status": readiness.status,
                "policy_generation": readiness.policy_generation,
                "workers": {"ready": readiness.workers_ready, "total": readiness.workers_total},
            }
        )

    head = get


class MetricsHandler(OpsHandler):
    """`/metrics`: the sum of all processes."""

    def get(self) -> None:
        """Answer with the exposition that the Accept field asks for."""
        accept = self.request.headers.get("Accept", "")
        page, content_type = expose(self.scoreboard, accept, self.readings())
        self.set_header("Content-Type", content_type)
        self.write(page)

    head = get


class UnknownPathHandler(OpsHandler):
    """Every other path."""

    def prepare(self) -> None:
        """Answer 404 to any method."""
        raise HTTPError(HTTPStatus.NOT_FOUND)


def make_app(scoreboard: Scoreboard, spool_bytes: Callable[[], int]) -> Application:
    """Return the application over a scoreboard, without an access log. `spool_bytes` gives the size of all journals."""
    processes, ledger = ProcessTable(scoreboard), LedgerHealth(scoreboard.ledger.ledger_health)

    def readings() -> list[Reading]:
        return [*ledger.readings(spool_bytes()), *processes.readings()]

    arguments = {"scoreboard": scoreboard, "readings": readings}
    return Application(
        [
            ("/livez", LiveHandler, arguments),
            ("/readyz", ReadyHandler, arguments),
            ("/metrics", MetricsHandler, arguments),
        ],
        default_handler_class=UnknownPathHandler,
        default_handler_args=arguments,
        log_function=_keep_silent,
    )


def serve_ops(
    listener: socket.socket,
    scoreboard: Scoreboard,
    *,
    spool_bytes: Callable[[], int],
    on_orphaned: Callable[[Callable[[], None]], None],
) -> None:
    """Serve on a listening socket until the supervisor asks to stop, in an event loop of its own.

    `spool_bytes` gives the size of all journals. `on_orphaned` takes what to call, within the loop, when the supervisor
    is gone: else the port would stay taken.
    """
    asyncio.run(_serve(listener, make_app(scoreboard, spool_bytes), on_orphaned))


async def _serve(listener: socket.socket, app: Application, on_orphaned: Callable[[Callable[[], None]], None]) -> None:
    stop = asyncio.Event()
    call_on_stop(asyncio.get_running_loop(), stop.set)
    on_orphaned(stop.set)
    server = HTTPServer(
        app,
        max_header_size=HEAD_BYTES,
        max_body_size=BODY_BYTES,
        idle_connection_timeout=IDLE_SECONDS,
        body_timeout=IDLE_SECONDS,
    )
    listener.settimeout(0)
    server.add_socket(listener)
    await stop.wait()
    server.stop()
    await server.close_all_connections()


def _keep_silent(_handler: RequestHandler) -> None:
    """Log no request: probes and scrapes come every few seconds for ever."""
