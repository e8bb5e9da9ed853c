"""The real emulator as a process of its own, and its control desk."""

from __future__ import annotations

import http.client
import json
import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlencode

from tests.harness.origin import overrides_to
from tests.harness.ports import LOOPBACK
from tests.harness.process import GATEWAY, GatewayProcess
from tests.harness.waiting import until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

ANNOUNCED: Final = re.compile(r"^fal emulator on (http://127\.0\.0\.1:(\d+))$", re.MULTILINE)
START_SECONDS: Final = 20.0
VISITS_MOST: Final = 100_000


class Emulator:
    """`fal-gateway emulator --port 0`, running. `key`: the one fal key that it takes; None for any.

    `program` stands for `-m gateway`, with the variables `env`, where something else starts it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        key: str | None = None,
        arguments: Sequence[str] = (),
        program: Sequence[str] = GATEWAY,
        env: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        asked = ["emulator", "--port", "0", *(["--key", key] if key else []), *arguments]
        self.process = GatewayProcess(asked, folder=folder, env=env, program=program)
        self.url, self.port = self._announcement()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def overrides(self) -> str:
        """Value of FALGW_ORIGIN_OVERRIDES that leads all of fal's hosts here."""
        return overrides_to(self.port)

    def control(self, method: str, path: str, content: object = None) -> Any:  # noqa: ANN401 - JSON
        """Ask the control desk: `path` is below `/_emulator/`; return its answer, read as JSON."""
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=START_SECONDS)
        body = None if content is None else json.dumps(content)
        connection.request(method, f"/_emulator/{path}", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        text = response.read()
        connection.close()
        assert response.status < 300, f"{method} {path}: {response.status} {text!r}"
        return json.loads(text) if text else None

    def executions(self, **filters: str) -> list[dict[str, Any]]:
        """Return what fal would bill: the paid requests that arrived whole, those where all these values are so."""
        return self._visits("executions", filters)

    def requests(self, **filters: str) -> list[dict[str, Any]]:
        """Return every request that it has seen, broken ones too, those where all these values are so."""
        return self._visits("requests", filters)

    def requests_total(self) -> int:
        """Return how many requests it has seen since the last reset."""
        return int(self.control("GET", "requests?limit=0")["total"])

    def reset(self) -> None:
        """Forget all requests, jobs and changed settings."""
        self.control("POST", "reset")

    def settings(self, **values: Any) -> None:  # noqa: ANN401 - JSON
        """Change settings: durations, prices, faults."""
        self.control("POST", "settings", values)

    def close(self) -> None:
        """End it, and check that it ended cleanly; harmless when done twice."""
        self.process.stop()

    def _visits(self, page: str, filters: Mapping[str, str]) -> list[dict[str, Any]]:
        query = urlencode({"limit": str(VISITS_MOST), **filters})
        return list(self.control("GET", f"{page}?{query}")[page])

    def _announcement(self) -> tuple[str, int]:
        found = until(self._announced, "the emulator's first line", timeout_seconds=START_SECONDS)
        return found[1], int(found[2])

    def _announced(self) -> re.Match[str] | None:
        return ANNOUNCED.search(self.process.stdout()) if self.process.alive() else None
