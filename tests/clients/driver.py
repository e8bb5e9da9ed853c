"""The real `@fal-ai/client`, on Node and in a browser, behind one Python function each.

The decision it carries: the scripts only carry out a specification and report; what is right is said by the tests.
"""

from __future__ import annotations

import json
import subprocess
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, Self

from tests.harness.ports import LOOPBACK
from tests.harness.process import clean_environment

FOLDER: Final = Path(__file__).parent
BROWSER: Final = "/usr/bin/chromium"
CALL_SECONDS: Final = 60.0
PAGE: Final = b"<!doctype html><title>page</title><link rel=icon href=data:,><script src=/page.js></script>"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call went: its value, or the error as the client's user sees it, and every request that was sent."""

    value: Any
    error: dict[str, Any] | None
    attempts: list[dict[str, Any]]
    console: list[str]

    @property
    def statuses(self) -> list[int | None]:
        """Status of each request that was sent; None where no answer came."""
        return [attempt["status"] for attempt in self.attempts]


def run_script(script: str, *, content: object = None) -> str:
    """Run one of the scripts here with JSON on its standard input; return what it printed."""
    finished = subprocess.run(
        ["node", script],
        cwd=FOLDER,
        env=clean_environment({}),
        input=json.dumps(content),
        capture_output=True,
        text=True,
        timeout=CALL_SECONDS,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def outcome_of(line: str) -> Outcome:
    """Return the outcome that a script printed."""
    told = json.loads(line)
    return Outcome(told.get("value"), told.get("error"), told["attempts"], told.get("console", []))


@dataclass(frozen=True, slots=True)
class NodeClient:
    """The real client on Node, with the gateway as its proxy, or `direct` before the emulator without any."""

    credentials: str
    proxy: str | None = None
    direct: str | None = None
    package: str = "@fal-ai/client"

    def call(self, name: str, endpoint: str = "", **specification: Any) -> Outcome:  # noqa: ANN401 - JSON
        """Make one call (a name in calls.mjs) in a process of its own."""
        return outcome_of(run_script("node.mjs", content=self.specification(name, endpoint, **specification)))

    def specification(self, name: str, endpoint: str = "", **more: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
        """Return what the scripts are told."""
        asked = {"credentials": self.credentials, "proxy": self.proxy, "direct": self.direct, "package": self.package}
        return {**asked, "call": name, "endpoint": endpoint, **more}


def call_in_browser(page: str, specification: dict[str, Any]) -> Outcome:
    """Open a page in a new browser and make one call in it."""
    return outcome_of(
        run_script("browser.mjs", content={"browser": BROWSER, "page": page, "specification": specification})
    )


def bundle_page() -> bytes:
    """Return the script of the page: the real client and `perform`, bundled as a web application would."""
    return run_script("bundle.mjs").encode()


class PageServer:
    """An origin of its own that serves one page; `origin` names it by address, `stranger` is the same by name."""

    def __init__(self, script: bytes) -> None:
        self._server = ThreadingHTTPServer((LOOPBACK, 0), serving({"/": PAGE, "/page.js": script}))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        port = self._server.server_address[1]
        self.origin = f"http://{LOOPBACK}:{port}"
        self.stranger = f"http://localhost:{port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def serving(contents: dict[str, bytes]) -> type[BaseHTTPRequestHandler]:
    """Return a handler that serves these contents by path."""

    class Page(BaseHTTPRequestHandler):
        """Serves what it was given, and 404 for the rest."""

        def do_GET(self) -> None:
            """Answer with the content of the path."""
            content = contents.get(self.path)
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Type", "text/javascript" if self.path.endswith(".js") else "text/html")
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    return Page
