"""One log for structlog's events, the exchanges, and what libraries say; each test in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from gateway.telemetry.log.log import Log
from gateway.telemetry.record import ExchangeRecord

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.telemetry.record import Outcome


def _stderr_of(script: str, *, level: str = "info", started: bool = True) -> list[dict[str, Any]]:
    """Run a script with an installed log, and return the lines on its stderr."""
    frame = f"""
import logging, warnings, structlog
from gateway.telemetry.log.log import Log
log = Log(level={level!r})
log.install()
{"log.start_writer()" if started else ""}
{script}
assert log.stop(5)
"""
    ended = subprocess.run([sys.executable, "-c", frame], capture_output=True, check=True, timeout=30)
    return [json.loads(line) for line in ended.stderr.splitlines()]


@pytest.mark.parametrize("started", [True, False])
def test_a_lifecycle_event_is_one_line(*, started: bool) -> None:
    """`get_logger().info(name, field=value)` works with the thread and without it, in the order of the fields."""
    (line,) = _stderr_of("structlog.get_logger().info('worker_ready', worker=1)", started=started)
    assert list(line) == ["timestamp", "level", "event", "worker"]
    assert (line["level"], line["event"], line["worker"]) == ("info", "worker_ready", 1)


def test_levels_below_the_setting_are_silent() -> None:
    """The setting holds for our own events and for the libraries'."""
    script = """
for logger in (structlog.get_logger(), logging.getLogger("tornado.general")):
    logger.info("quiet")
    logger.warning("loud")
"""
    assert [line["level"] for line in _stderr_of(script, level="warning")] == ["warning", "warning"]


def test_libraries_speak_json_too() -> None:
    """A message through `logging` names its logger and carries its traceback inside the line."""
    script = """
try:
    raise ValueError("inside")
except ValueError:
    logging.getLogger("asyncio").exception("gone %s", "wrong")
"""
    (line,) = _stderr_of(script)
    assert (line["event"], line["logger"], line["message"]) == ("library_message", "asyncio", "gone wrong")
    assert "ValueError: inside" in line["exception"]


def test_a_message_that_does_not_fit_its_arguments_is_still_a_line() -> None:
    """A library's mistake does not print a raw traceback."""
    (line,) = _stderr_of("logging.getLogger('tornado').error('%d of %d', 'x')")
    assert line["message"] == "%d of %d"


def test_warnings_are_lines() -> None:
    """Python's warnings go the same way."""
    (line,) = _stderr_of("warnings.simplefilter('always'); warnings.warn('old', DeprecationWarning)")
    assert (line["logger"], line["level"]) == ("py.warnings", "warning")
    assert "DeprecationWarning: old" in line["message"]


def test_an_exception_of_ours_is_inside_its_line() -> None:
    """The traceback is taken at the call, though the line is rendered by another thread."""
    script = """
try:
    raise KeyError("inside")
except KeyError:
    structlog.get_logger().exception("worker_failed", worker=2)
"""
    (line,) = _stderr_of(script)
    assert (line["event"], line["level"], line["worker"]) == ("worker_failed", "error", 2)
    assert line["exception"].endswith("KeyError: 'inside'")


def test_an_exception_that_ends_a_thread_is_a_line() -> None:
    """Python would print a traceback of its own."""
    script = """
import threading
thread = threading.Thread(target=lambda: 1 / 0, name="trace-exporter")
thread.start()
thread.join()
"""
    (line,) = _stderr_of(script)
    assert (line["event"], line["level"], line["thread"]) == ("thread_failed", "error", "trace-exporter")
    assert line["exception"].endswith("ZeroDivisionError: division by zero")


@pytest.mark.parametrize("started", [True, False])
def test_an_exception_that_nobody_is_told_of_is_a_line(*, started: bool) -> None:
    """As is one that is raised while an object goes."""
    script = """
class Odd:
    def __del__(self):
        raise ValueError("inside")
Odd()
"""
    (line,) = _stderr_of(script, started=started)
    assert (line["event"], line["level"]) == ("exception_ignored", "error")
    assert "Odd.__del__" in line["place"]
    assert line["exception"].endswith("ValueError: inside")


def test_an_exception_that_ends_the_process_is_a_line() -> None:
    """The supervisor's bug is told as its children's are; the exit code says that it failed."""
    script = "from gateway.telemetry.log.log import Log\nLog().install()\n1 / 0"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False, timeout=30)
    (line,) = [json.loads(line) for line in ended.stderr.splitlines()]
    assert (ended.returncode, line["event"], line["level"]) == (1, "process_failed", "error")
    assert line["exception"].endswith("ZeroDivisionError: division by zero")


@pytest.mark.parametrize(
    ("level", "outcome", "shown"),
    [("info", "ok", True), ("warning", "ok", False), ("warning", "origin_failed", True), ("error", "cut", False)],
)
def test_exchanges_obey_the_level(tmp_path: Path, *, level: str, outcome: Outcome, shown: bool) -> None:
    """At `warning` only the exchanges that went wrong are logged."""
    path = tmp_path / "log"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    log = Log(level=level, fd=fd)
    log.start_writer()
    record = ExchangeRecord("id", "POST")
    record.outcome = outcome
    log.exchange(record)
    assert log.stop(5)
    os.close(fd)
    assert (b'"event":"exchange"' in path.read_bytes()) is shown


def test_losses_are_counted_where_the_process_says() -> None:
    """From `count_to` on, a lost line is a count of this process."""
    full = os.open("/dev/full", os.O_WRONLY)
    lost: list[int] = []
    log = Log(fd=full)
    log.exchange(ExchangeRecord("early", "POST"))
    log.count_to(lost.append)
    log.exchange(ExchangeRecord("late", "POST"))
    os.close(full)
    assert lost == [1]


def test_the_console_form_is_text(tmp_path: Path) -> None:
    """For a person at a terminal a line reads as words, without colours where it is none."""
    fd = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    Log(console=True, fd=fd).exchange(ExchangeRecord("id", "POST"))
    os.close(fd)
    text = (tmp_path / "log").read_text()
    assert "method=POST" in text
    assert "\x1b" not in text
