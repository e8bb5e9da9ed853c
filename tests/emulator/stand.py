"""A running emulator as its tests see it: a port, requests to one of fal's hosts, and the pages of control."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, Final

from tests.harness.client import RawClient, Response
from tests.harness.messages import message
from tests.harness.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

FAL_KEY: Final = "id-of-tests:secret-of-tests"
AUTHORIZED: Final = ("Authorization", f"Key {FAL_KEY}")
START: Final = "from gateway.emulator.server import serve; serve(host='127.0.0.1', port=0, key={key!r})"


class Stand:
    """One emulator's process."""

    def __init__(self, key: str | None = FAL_KEY) -> None:
        self.complaints = TemporaryFile("w+")  # noqa: SIM115 - closed in `end`, with the process that writes it
        program = [sys.executable, "-c", START.format(key=key)]
        self.process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=self.complaints, text=True)
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()
        found = re.fullmatch(r"fal emulator on (http://127\.0\.0\.1:(\d+))\n", self.line)
        assert found, f"not the announcement: {self.line!r}"
        self.url, self.port = found[1], int(found[2])

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End the process by a signal and return its exit code; whatever it had to put up with, it never complains."""
        self.process.send_signal(number)
        code = self.process.wait(timeout=10)
        assert self.process.stdout is not None
        self.process.stdout.close()
        with self.complaints as complaints:
            complaints.seek(0)
            assert complaints.read() == ""
        return code

    def head(
        self, host: str, path: str, *, method: str = "POST", fields: Sequence[tuple[str, str]] = (AUTHORIZED,)
    ) -> bytes:
        """Return the bytes of a request's head, without framing."""
        return message(f"{method} {path} HTTP/1.1", [("Host", host), *fields])

    def request(  # noqa: PLR0913 - each is one thing that some test changes
        self,
        host: str,
        path: str,
        *,
        method: str = "POST",
        content: object = None,
        faults: str = "",
        fields: Sequence[tuple[str, str]] = (AUTHORIZED,),
    ) -> bytes:
        """Return the bytes of a whole request; content other than bytes becomes JSON."""
        body = content if isinstance(content, bytes) else b"" if content is None else json.dumps(content).encode()
        asked = [("X-Fal-Emulate", faults)] if faults else []
        framing = [("Content-Length", str(len(body)))] if body or method not in {"GET", "OPTIONS"} else []
        return self.head(host, path, method=method, fields=[*fields, *asked, *framing]) + body

    def ask(self, host: str, path: str, **more: Any) -> Response:  # noqa: ANN401 - as `request` takes it
        """Send a request on a connection of its own and return the whole answer."""
        with RawClient(self.port) as client:
            client.send(self.request(host, path, **more))
            return client.read_response(more.get("method", "POST"))

    def run(self, faults: str = "", **more: Any) -> Response:  # noqa: ANN401 - as `request` takes it
        """Run a model."""
        return self.ask("fal.run", "/fal-ai/flux/dev", faults=faults, **{"content": {"prompt": "a cat"}, **more})

    @contextmanager
    def running(self, faults: str, *, content: object = None) -> Iterator[RawClient]:
        """Send a run that suffers faults and leave its answer to be read."""
        with RawClient(self.port) as client:
            client.send(self.request("fal.run", "/fal-ai/flux/dev", content=content or {"prompt": "x"}, faults=faults))
            yield client

    def control(self, page: str, content: object = None) -> Any:  # noqa: ANN401 - JSON
        """Return a page of control; with content, POST it."""
        method = "GET" if content is None else "POST"
        answer = self.ask("127.0.0.1", f"/_emulator/{page}", method=method, content=content, fields=())
        assert answer.status == 200, answer.body
        return answer.json()

    def executions(self) -> list[dict[str, Any]]:
        """Return the executions."""
        return list(self.control("executions")["executions"])

    def outcome(self, wanted: str) -> dict[str, Any]:
        """Return the latest request once it has ended as wanted."""

        def latest() -> dict[str, Any] | None:
            found = self.control(f"requests?outcome={wanted}&limit=1")["requests"]
            return found[0] if found else None

        return until(latest, f"a request that ended as {wanted}")

    @contextmanager
    def level(self, most_bytes: int) -> Iterator[Callable[[], None]]:
        """Hand out a look at the resident memory, and check that no look saw it grow by more than `most_bytes`."""
        before, seen = self._memory_bytes(), [0]
        yield lambda: seen.append(self._memory_bytes())
        assert max(seen) > before // 2, "nobody looked"
        assert max(seen) - before <= most_bytes

    def _memory_bytes(self) -> int:
        statm = Path(f"/proc/{self.process.pid}/statm").read_text(encoding="ascii")
        return int(statm.split()[1]) * os.sysconf("SC_PAGE_SIZE")
