"""What the kernel says of the processes, summed by what they are there for; CPU time never falls."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from gateway.telemetry.metrics import families as metrics
from gateway.telemetry.metrics.process_stats import ProcessTable, Usage, usage_of
from gateway.telemetry.metrics.scoreboard import Scoreboard

if TYPE_CHECKING:
    from collections.abc import Iterator

SPIN = "import time\nwhile time.process_time() < 0.3: pass\nprint('spun', flush=True)\ntime.sleep(60)"


@pytest.fixture
def scoreboard() -> Iterator[Scoreboard]:
    """Return a scoreboard for two workers."""
    made = Scoreboard(workers=2)
    yield made
    made.close()


def read(table: ProcessTable) -> dict[str, dict[str, int]]:
    """Return the readings by family and process."""
    return {family.name: {process: cells[0] for (process,), cells in sums.items()} for family, sums in table.readings()}


def test_a_process_is_what_the_kernel_says(tmp_path: os.PathLike[str]) -> None:
    """Descriptors, their limit, resident memory and CPU time of this very process."""
    before = usage_of(os.getpid())
    with open(os.path.join(tmp_path, "one-more"), "w", encoding="utf-8"):  # noqa: PTH118, PTH123
        after = usage_of(os.getpid())
    assert after.open_fds == before.open_fds + 1
    assert after.max_fds == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert after.memory_bytes > 10_000_000
    assert after.cpu_us == pytest.approx(sum(os.times()[:2]) * 1e6, abs=100_000)


def test_what_is_not_there_uses_nothing() -> None:
    """Neither an empty slot nor a process that has just gone makes a scrape fail."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert usage_of(0) == usage_of(gone.pid) == Usage(0, 0, 0, 0)


def test_processes_are_summed_by_their_part(scoreboard: Scoreboard) -> None:
    """Two workers count as one; every part has a series, with nobody in it too."""
    for slot in scoreboard.workers:
        slot.take(os.getpid())
    scoreboard.ops.take(os.getpid())
    found = read(ProcessTable(scoreboard))
    assert set(found) == {"open_fds", "max_fds", "resident_memory_bytes", "cpu_seconds_total"}
    for usage in found.values():
        assert set(usage) == set(metrics.PROCESSES)
        assert usage["ledger"] == usage["supervisor"] == 0
    assert found["max_fds"]["worker"] == 2 * found["max_fds"]["ops"] > 0


def test_cpu_time_stays_when_its_process_dies(scoreboard: Scoreboard) -> None:
    """It is in the sum while the process lives, while it is dead and not yet reaped, and once the scoreboard has it."""
    table, slot = ProcessTable(scoreboard), scoreboard.workers[0]
    spinner = subprocess.Popen([sys.executable, "-c", SPIN], stdout=subprocess.PIPE)
    assert spinner.stdout is not None
    with spinner.stdout:
        slot.take(spinner.pid)
        assert spinner.stdout.readline() == b"spun\n"
        seen = [read(table)["cpu_seconds_total"]["worker"]]
        os.kill(spinner.pid, signal.SIGKILL)
        _, _, usage = os.wait4(spinner.pid, 0)
        spinner.returncode = -signal.SIGKILL
        seen.append(read(table)["cpu_seconds_total"]["worker"])
        slot.vacate(cpu_us=int((usage.ru_utime + usage.ru_stime) * 1e6))
        seen.append(read(table)["cpu_seconds_total"]["worker"])
    assert seen[0] >= 290_000
    assert seen == sorted(seen)
    assert read(ProcessTable(scoreboard))["cpu_seconds_total"]["worker"] >= 290_000, (
        "also by an ops process that is new"
    )
