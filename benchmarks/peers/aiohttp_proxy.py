"""The same proxy in aiohttp, server and client, as its documentation would have it: streamed both ways.

`aiohttp_proxy.py PORT ORIGIN_PORT SECRET`. It does what the gateway does to a request's fields, and no more: no
metrics, no log, no limits; so what it costs is a lower bound for a gateway on aiohttp.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

# Not of this environment: the checker of types has not got them either.
from aiohttp import ClientSession, ClientTimeout, DummyCookieJar, TCPConnector, web  # type: ignore[import-not-found]
from yarl import URL  # type: ignore[import-not-found]

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PASSED_ON = frozenset(
    {
        *("accept", "accept-encoding", "accept-language", "content-type", "content-length", "content-encoding"),
        *("user-agent", "range", "traceparent", "tracestate", "idempotency-key"),
    }
)
KEPT_BACK = frozenset(
    {
        *("connection", "keep-alive", "proxy-authenticate", "te", "trailer", "transfer-encoding", "upgrade"),
        *("set-cookie", "alt-svc", "strict-transport-security", "server"),
    }
)
TARGET_FIELD = "x-fal-target-url"
SESSION = web.AppKey("session", ClientSession)


class Proxy:
    """Forwards what carries the secret to the origin."""

    def __init__(self, origin_port: int, secret: str) -> None:
        self._origin = f"http://127.0.0.1:{origin_port}"
        self._credential = f"Bearer {secret}"

    async def keep_session(self, app: web.Application) -> AsyncIterator[None]:
        """Hold one client session while the server runs."""
        connector = TCPConnector(limit=0)
        timeout = ClientTimeout(total=None, sock_connect=10, sock_read=900)
        async with ClientSession(
            connector=connector, timeout=timeout, auto_decompress=False, cookie_jar=DummyCookieJar()
        ) as session:
            app[SESSION] = session
            yield

    async def forward(self, request: web.Request) -> web.StreamResponse:
        """Relay one request and its answer."""
        if request.headers.get("Authorization") != self._credential:
            raise web.HTTPUnauthorized
        url = self._url(request.headers.get(TARGET_FIELD, ""))
        content = request.content if request.body_exists else None
        session = request.app[SESSION]
        async with session.request(
            request.method, url, headers=self._to_origin(request), data=content, allow_redirects=False
        ) as answer:
            reply = web.StreamResponse(status=answer.status, reason=answer.reason)
            for name, value in answer.headers.items():
                if name.lower() not in KEPT_BACK:
                    reply.headers.add(name, value)
            await reply.prepare(request)
            async for piece in answer.content.iter_any():
                await reply.write(piece)
            await reply.write_eof()
        return reply

    def _url(self, target: str) -> URL:
        scheme, _, rest = target.partition("://")
        host, _, path = rest.partition("/")
        if scheme != "https" or not (host == "fal.run" or host.endswith((".fal.run", ".fal.ai"))):
            raise web.HTTPPreconditionFailed
        return URL(f"{self._origin}/{path}", encoded=True)

    def _to_origin(self, request: web.Request) -> dict[str, str]:
        fields = {
            name: value
            for name, value in request.headers.items()
            if (lower := name.lower()) in PASSED_ON or (lower.startswith("x-fal-") and lower != TARGET_FIELD)
        }
        return {**fields, "Authorization": "Key bench:secret", "x-fal-client-proxy": "aiohttp"}


def main() -> None:
    """Serve until SIGTERM."""
    port, origin_port, secret = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    proxy = Proxy(origin_port, secret)
    app = web.Application(client_max_size=1 << 33)
    app.cleanup_ctx.append(proxy.keep_session)
    app.router.add_route("*", "/api/fal/proxy", proxy.forward)
    web.run_app(app, host="127.0.0.1", port=port, access_log=None, print=None, backlog=1024)


if __name__ == "__main__":
    main()
