"""How a request finds its way through a system to the origin: the one difference between systems that drivers know.

Most are told the target in `x-fal-target-url`, as fal's clients do; LiteLLM takes the origin's path behind its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

PROXY_PATH: Final = "/api/fal/proxy"
RUN_HOST: Final = "https://fal.run"
QUEUE_HOST: Final = "https://queue.fal.run"
_FREE_MARK: Final = "/requests/"


@dataclass(frozen=True, slots=True)
class Route:
    """`path_only`: the origin's path goes behind `prefix`, else into the target. `target_base`: in place of fal's."""

    port: int
    secret: str
    prefix: str = PROXY_PATH
    path_only: bool = False
    target_base: str = ""

    def request_target(self, path: str) -> str:
        """Return the path to ask the system for."""
        return self.prefix + path if self.path_only else self.prefix

    def fields(self, path: str) -> dict[str, str]:
        """Return the request's fields, as fal's JavaScript client sends them, without those of its content."""
        fields = {
            "Host": f"127.0.0.1:{self.port}",
            "Authorization": f"Bearer {self.secret}",
            "Accept": "application/json",
            "Content-Type": "application/json",
            "User-Agent": "@fal-ai/client/1.10.1",
        }
        if not self.path_only:
            fields["x-fal-target-url"] = self._base(path) + path
        return fields

    def head(self, method: str, path: str, *, content_length: int | None = None) -> bytes:
        """Return a request's head; `path` is the origin's."""
        fields = self.fields(path)
        if content_length is not None:
            fields["Content-Length"] = str(content_length)
        lines = (f"{name}: {value}\r\n" for name, value in fields.items())
        return f"{method} {self.request_target(path)} HTTP/1.1\r\n{''.join(lines)}\r\n".encode()

    def _base(self, path: str) -> str:
        return self.target_base or (QUEUE_HOST if _FREE_MARK in path else RUN_HOST)
