"""A real Prometheus of the tests' own: it scrapes what it is told to, and answers queries over its HTTP API."""

from __future__ import annotations

import http.client
import json
import shutil
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlencode

import yaml

from tests.harness.ports import LOOPBACK, ReservedPort
from tests.harness.program import Program
from tests.harness.waiting import until

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

START_SECONDS: Final = 30.0
QUERY_SECONDS: Final = 20.0

Sample = dict[str, Any]


class QueryError(AssertionError):
    """Prometheus did not take a query; the message is what it said."""


class Prometheus:
    """`prometheus`, running. It scrapes every `scrape_seconds` what it is told by `scrape`; at the start, nothing."""

    def __init__(self, folder: Path, *, scrape_seconds: float) -> None:
        program = shutil.which("prometheus")
        assert program, "prometheus is not installed (Debian: prometheus)"
        folder.mkdir(parents=True, exist_ok=True)
        self.scrape_seconds = scrape_seconds
        self._jobs = folder / "jobs.json"
        self.scrape({})
        self._port = ReservedPort()
        command = [
            program,
            f"--config.file={self._configured(folder)}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={LOOPBACK}:{self._port.number}",
        ]
        self._program = Program(command, folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def scrape(self, jobs: Mapping[str, list[str]]) -> None:
        """Scrape these targets (`host:port`, by job) from now on: it looks every second at where they are written."""
        groups = [{"targets": targets, "labels": {"job": job}} for job, targets in jobs.items()]
        fresh = self._jobs.with_suffix(".new")
        fresh.write_text(json.dumps(groups), encoding="utf-8")
        fresh.replace(self._jobs)

    def wait_ready(self) -> Self:
        """Wait until it answers queries."""
        until(self._ready, "readiness of Prometheus", timeout_seconds=START_SECONDS)
        return self

    def at(self, query: str, moment: float) -> list[Sample]:
        """Return what a query gives at a moment (seconds since the epoch); QueryError where it is not understood."""
        return list(self._asked("query", {"query": query, "time": f"{moment:.3f}"})["result"])

    def over(self, query: str, since: float, until_: float, step_seconds: float) -> list[Sample]:
        """Return what a query gives at each step from `since` to `until_`."""
        asked = {"query": query, "start": f"{since:.3f}", "end": f"{until_:.3f}", "step": f"{step_seconds:.3f}"}
        return list(self._asked("query_range", asked)["result"])

    def label_values(self, label: str, selector: str, since: float, until_: float) -> list[str]:
        """Return the values of a label of the series that a selector names."""
        asked = {"match[]": selector, "start": f"{since:.3f}", "end": f"{until_:.3f}"}
        return list(self._asked(f"label/{label}/values", asked))

    def close(self) -> None:
        """End it and give the port back; harmless when done twice."""
        self._program.end()
        self._port.release()

    def _configured(self, folder: Path) -> Path:
        found = [{"files": [str(self._jobs)], "refresh_interval": "1s"}]
        interval = f"{round(self.scrape_seconds * 1000)}ms"
        settings = {
            "global": {"scrape_interval": interval, "scrape_timeout": interval},
            "scrape_configs": [{"job_name": "gateways", "file_sd_configs": found}],
        }
        file = folder / "prometheus.yaml"
        file.write_text(yaml.safe_dump(settings), encoding="utf-8")
        return file

    def _ready(self) -> bool:
        self._program.check()
        try:
            return self._get("/-/ready")[0] == http.client.OK
        except OSError:
            return False

    def _asked(self, page: str, parameters: Mapping[str, str]) -> Any:  # noqa: ANN401 - JSON
        status, text = self._get(f"/api/v1/{page}?{urlencode(parameters)}")
        answer = json.loads(text)
        if status != http.client.OK:
            raise QueryError(f"{answer.get('error', text)}: {parameters}")
        return answer["data"]

    def _get(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(LOOPBACK, self._port.number, timeout=QUERY_SECONDS)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()
