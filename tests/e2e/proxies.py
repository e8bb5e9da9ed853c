"""nginx and Traefik as processes on loopback, configured by what docs/proxies.md says, word for word.

The decision it carries: the configuration is read out of the page, and only addresses are put in, so that what an
operator copies is what was tested.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Self

from tests.e2e.tools import PLACE, ROOT
from tests.harness.client import RawClient
from tests.harness.messages import proxy_request
from tests.harness.ports import LOOPBACK, ReservedPort
from tests.harness.program import Program
from tests.harness.waiting import until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PAGE: Final = ROOT / "docs" / "proxies.md"
TRAEFIK: Final = PLACE / "traefik" / "bin" / "traefik"
AS_INSTALLED: Final = "location /api/fal/proxy {{ proxy_pass http://{gateway}; {more} }}"
_BLOCK: Final = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_GATEWAY: Final = f"{LOOPBACK}:8080"
_NGINX: Final = """\
daemon off;
user root;
pid {folder}/nginx.pid;
error_log stderr;
worker_processes 1;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen {listen};
        {location}
    }}
}}
"""
_TRAEFIK_AS_INSTALLED: Final = """\
entryPoints:
  web:
    address: {listen}
providers:
  file:
    filename: {folder}/gateway.yaml
"""


def blocks(language: str) -> list[str]:
    """Return the page's examples in one language, in their order."""
    return [text for name, text in _BLOCK.findall(PAGE.read_text(encoding="utf-8")) if name == language]


class Proxy:
    """A proxy that runs on a port of its own until it is left."""

    def __init__(self, folder: Path, command: Sequence[str], *, port: ReservedPort) -> None:
        self._port = port
        self.port = port.number
        self._program = Program(command, folder, log="proxy.log")
        try:
            until(self._leads_to_the_gateway, f"{command[0]} to lead to the gateway", timeout_seconds=20)
        except AssertionError:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it."""
        self._program.end()
        self._port.release()

    def _leads_to_the_gateway(self) -> bool:
        """Say whether it is the gateway that answers: Traefik listens before it knows its routes."""
        self._program.check()
        try:
            with RawClient(self.port) as client:
                return client.ask(proxy_request(method="GET")).field("x-gateway-request-id") is not None
        except ConnectionRefusedError:
            return False


def nginx(folder: Path, location: str) -> Proxy:
    """Start nginx with this location; the gateway's address stands in it already."""
    port = ReservedPort()
    listen = f"{LOOPBACK}:{port.number}"
    configuration = folder / "nginx.conf"
    configuration.write_text(_NGINX.format(folder=folder, listen=listen, location=location), encoding="utf-8")
    return Proxy(folder, ["nginx", "-e", "stderr", "-c", str(configuration)], port=port)


def nginx_as_documented(folder: Path, gateway_port: int) -> Proxy:
    """Start nginx with the page's location."""
    (location,) = blocks("nginx")
    return nginx(folder, location.replace(_GATEWAY, f"{LOOPBACK}:{gateway_port}"))


def nginx_as_installed(folder: Path, gateway_port: int, *, more: str = "") -> Proxy:
    """Start nginx with a location that has nothing but the gateway's address, and `more`."""
    return nginx(folder, AS_INSTALLED.format(gateway=f"{LOOPBACK}:{gateway_port}", more=more))


def traefik(folder: Path, gateway_port: int, *, as_documented: bool) -> Proxy:
    """Start Traefik with the page's two files, or the first of them without its timeouts."""
    start, routes = blocks("yaml")
    port = ReservedPort()
    listen = f"{LOOPBACK}:{port.number}"
    if not as_documented:
        start = _TRAEFIK_AS_INSTALLED.format(listen=listen, folder=folder)
    start = start.replace(f"{LOOPBACK}:8000", listen)
    (folder / "traefik.yaml").write_text(start, encoding="utf-8")
    (folder / "gateway.yaml").write_text(routes.replace(_GATEWAY, f"{LOOPBACK}:{gateway_port}"), encoding="utf-8")
    return Proxy(folder, [str(TRAEFIK), f"--configFile={folder}/traefik.yaml"], port=port)
