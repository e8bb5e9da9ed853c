"""The emulator put together: which path on which host is which handler, and a server to listen with.

Decision: one port serves all of fal's hosts; the Host field says which, as the gateway keeps it, or the path's prefix
`/hosts/{host}` does, for people with curl. Every other Host is the emulator's own address: storage and control.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import TYPE_CHECKING, Final

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.routing import Router, URLSpec
from tornado.web import Application, RequestHandler

from gateway.emulator.answers import Answer, failure
from gateway.emulator.api_host import BillingEvents, Pricing
from gateway.emulator.behaviour import HOSTS
from gateway.emulator.control import Executions, Index, Requests, Reset, Settings
from gateway.emulator.handler import Reception
from gateway.emulator.queue_host import Cancel, Result, Status, StatusStream, Submit
from gateway.emulator.rest_host import Initiate, InitiateMultipart, Tokens
from gateway.emulator.run_host import Run, Stream
from gateway.emulator.state import World
from gateway.emulator.storage import Complete, Download, Picture, Upload

if TYPE_CHECKING:
    from tornado.httputil import HTTPMessageDelegate, HTTPServerRequest

ENDPOINT: Final = r"/(?P<asked>(?:emulate/[^/]+/)?)(?!emulate/)(?P<endpoint>[^/]+(?:/[^/]+)+)"
JOB: Final = r"/(?P<app>.+)/requests/(?P<request_id>[^/]+)"
OBJECT: Final = r"(?P<object_id>[0-9a-f]+)/[^/]+"
BODY_MOST_BYTES: Final = 2**50
ANYWHERE: Final = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - recognised, not bound


class Unknown(Reception):
    """A path that no host has."""

    needs_key = False

    async def compose(self) -> Answer:
        """Return 404."""
        return failure(404)

    get = post = put = delete = patch = options = Reception.respond


class Hosts(Router):
    """Every request put under the host that it is meant for, before the application routes it."""

    def __init__(self, routes: Application) -> None:
        self._routes = routes

    def find_handler(self, request: HTTPServerRequest, **_kwargs: object) -> HTTPMessageDelegate | None:
        """Read `/hosts/{host}` off the path."""
        prefix, _, rest = request.path.removeprefix("/hosts/").partition("/")
        if request.path.startswith("/hosts/") and prefix in HOSTS:
            request.host_name, request.path = prefix, f"/{rest}"
        return self._routes.find_handler(request)


class EmulatorServer(HTTPServer):
    """The listening emulator; `stop` also deletes what was uploaded."""

    world: World

    def stop(self) -> None:
        """Stop listening and delete the stored files; may be called again."""
        super().stop()
        self.world.files.clear()


def routes(world: World) -> Application:
    """Return the routes of all hosts over one world."""
    known = {"world": world}
    made = Application(default_handler_class=Unknown, default_handler_args=known, log_function=lambda _: None)
    for host, rules in ROUTES:
        made.add_handlers(host, [URLSpec(path, handler, known) for path, handler in rules])
    return made


ROUTES: Final[tuple[tuple[str, tuple[tuple[str, type[RequestHandler]], ...]], ...]] = (
    (r"fal\.run", ((ENDPOINT + "/stream", Stream), (ENDPOINT, Run))),
    (
        r"queue\.fal\.run",
        (
            (JOB + "/status/stream", StatusStream),
            (JOB + "/status", Status),
            (JOB + "/cancel", Cancel),
            (JOB, Result),
            (ENDPOINT, Submit),
        ),
    ),
    (
        r"rest\.fal\.ai",
        (
            ("/storage/upload/initiate", Initiate),
            ("/storage/upload/initiate-multipart", InitiateMultipart),
            ("/tokens/", Tokens),
        ),
    ),
    (r"api\.fal\.ai", (("/v1/models/pricing", Pricing), ("/v1/models/billing-events", BillingEvents))),
    (
        r"(?!(?:fal\.run|queue\.fal\.run|rest\.fal\.ai|api\.fal\.ai)$).*",
        (
            (f"/storage/uploads/{OBJECT}/complete", Complete),
            (f"/storage/uploads/{OBJECT}(?P<part>(?:/[0-9]+)?)", Upload),
            (f"/storage/files/{OBJECT}", Download),
            (r"/storage/images/(?P<width>[0-9]{1,4})x(?P<height>[0-9]{1,4})-(?P<seed>[0-9]{1,20})\.png", Picture),
            ("/_emulator/executions", Executions),
            ("/_emulator/requests", Requests),
            ("/_emulator/settings", Settings),
            ("/_emulator/reset", Reset),
            ("/", Index),
        ),
    ),
)
"""Handlers by path by host; the first match wins."""


def listen(*, host: str, port: int, key: str | None) -> tuple[HTTPServer, int]:
    """Start an emulator on the running loop; return it and its port (`port` 0: any free one). `stop()` ends it."""
    sockets = bind_sockets(port, address=host, backlog=1024)
    bound = int(sockets[0].getsockname()[1])
    world = World(own_url=f"http://{_named(host)}:{bound}", key=key)
    server = EmulatorServer(Hosts(routes(world)), max_body_size=BODY_MOST_BYTES)
    server.world = world
    server.add_sockets(sockets)
    return server, bound


def _named(host: str) -> str:
    """Return the host as a URL names it; an address of all interfaces is not one that a client can connect to."""
    if host in ANYWHERE:
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def serve(*, host: str, port: int, key: str | None) -> None:
    """Run an emulator until SIGTERM or SIGINT; say on stdout where it listens."""
    asyncio.run(_serve(host, port, key=key))


async def _serve(host: str, port: int, *, key: str | None) -> None:
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    server, bound = listen(host=host, port=port, key=key)
    sys.stdout.write(f"fal emulator on http://{_named(host)}:{bound}\n")
    sys.stdout.flush()
    await ended.wait()
    server.stop()
    await server.close_all_connections()
