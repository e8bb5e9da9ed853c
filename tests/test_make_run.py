"""`make run` as a newcomer meets it: what it prints works as pasted, and Ctrl-C ends everything in order."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.harness.client import RawClient
from tests.harness.messages import RUN_TARGET, proxy_request
from tests.harness.ports import ReservedPort
from tests.harness.process import GatewayProcess
from tests.harness.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

RUN: Final = Path(__file__).parent.parent / "tools" / "run.py"
START_SECONDS: Final = 30.0
SHUTDOWN_DELAY_SECONDS: Final = 5.0
"""The default of FALGW_SHUTDOWN_DELAY."""

EMULATOR: Final = re.compile(r"emulator of fal on http://127\.0\.0\.1:(\d+)")
CURL: Final = re.compile(r"^\s*(curl (?:.*\\\n)*.*)\n", re.MULTILINE)
KEY: Final = re.compile(r"gwk_\w+")


class Run:
    """`tools/run.py` in an empty folder, on ports of its own."""

    def __init__(self, folder: Path) -> None:
        self._ports = (ReservedPort(), ReservedPort())
        self.port = self._ports[0].number
        env = {
            "FALGW_PORT": str(self.port),
            "FALGW_OPS_PORT": str(self._ports[1].number),
            "FALGW_DATABASE_URL": "sqlite:///real.db",
        }
        self.process = GatewayProcess([], folder=folder, env=env, program=[str(RUN)])
        self.curl = until(self._curl, "the curl line", timeout_seconds=START_SECONDS)
        self.emulator_port = int(self._printed(EMULATOR)[1])
        self.key = self._printed(KEY)[0]

    def close(self) -> None:
        """End what is left of it."""
        self.process.kill()
        for port in self._ports:
            port.release()

    def _printed(self, pattern: re.Pattern[str]) -> re.Match[str]:
        found = pattern.search(self.process.stdout())
        assert found, self.process.story()
        return found

    def _curl(self) -> str | None:
        found = CURL.search(self.process.stdout()) if self.process.alive() else None
        return found[1] if found else None


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Start it as `make run` does, without any fal credential."""
    started = Run(tmp_path)
    yield started
    started.close()


def test_the_printed_curl_line_works_as_pasted(run: Run) -> None:
    """Without a credential, the line that is printed answers with a picture of the emulator's."""
    pasted = subprocess.run(["bash", "-c", run.curl], capture_output=True, text=True, timeout=20, check=True)
    assert json.loads(pasted.stdout)["images"][0]["url"].startswith(f"http://127.0.0.1:{run.emulator_port}/")


def test_ctrl_c_lets_what_is_under_way_end_and_leaves_nothing_behind(run: Run) -> None:
    """A request under way at Ctrl-C is answered by the emulator, which ends after the gateway; both are then gone."""
    family = run.process.family()
    with RawClient(run.port) as client:
        client.send(proxy_request(RUN_TARGET, key=run.key, fields=[("x-fal-emulate", "delay=1000")]))
        until(lambda: seen_by_emulator(run), "the request at the emulator")
        run.process.signal(signal.SIGINT)
        assert client.read_response().status == 200
    answered_at = time.monotonic()
    assert run.process.wait(timeout_seconds=15) == 0, run.process.story()
    assert time.monotonic() - answered_at < SHUTDOWN_DELAY_SECONDS, "no delay for a load balancer that is not there"
    assert len(family) >= 4, "run.py, gateway, worker and emulator"
    assert [member for member in family if member.is_running()] == []


def test_trying_out_leaves_the_real_ledger_alone(run: Run) -> None:
    """With the emulator purchases go to a ledger of its own, and what is printed names both."""
    subprocess.run(["bash", "-c", run.curl], capture_output=True, timeout=20, check=True)
    run.process.signal(signal.SIGINT)
    assert run.process.wait(timeout_seconds=15) == 0, run.process.story()
    ledgers = sorted(path.name for path in run.process.folder.glob("*.db"))
    assert ledgers == ["fal-gateway-emulator.db"]
    assert f"emulator of fal on http://127.0.0.1:{run.emulator_port}" in run.process.stdout()
    assert "fal-gateway-emulator.db" in run.process.stdout()


def seen_by_emulator(run: Run) -> bool:
    """Say whether the emulator has executed anything yet."""
    with RawClient(run.emulator_port) as control:
        answer = control.ask(b"GET /_emulator/executions HTTP/1.1\r\nHost: emulator.test\r\n\r\n")
    return bool(answer.json()["total"])
