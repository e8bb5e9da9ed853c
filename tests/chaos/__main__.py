"""`python -m tests.chaos --seed N --seconds N`: exit code 1 where something was violated (README.md)."""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Final

from tests.chaos.outages import measure
from tests.chaos.plan import Draw
from tests.chaos.report import lines_of, schedule_lines
from tests.chaos.run import FORMS, Report, SiteForm, run_site

INTERRUPTED: Final = 130
"""The exit code of what Ctrl-C ends, in a shell's words."""


def main(arguments: list[str]) -> int:
    """Run every site, print the tables; return 1 where something was violated."""
    asked = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what runs is ended
    folder = Path(tempfile.mkdtemp(prefix="falgw-chaos-"))
    if asked.outages:
        return _outages(folder, repeats=asked.repeats)
    forms = [form for form in FORMS if asked.site in {"all", form.name}]
    _say(f"chaos: seed {asked.seed}, {asked.seconds:g} s, in {folder}")
    interrupted = threading.Event()
    with ThreadPoolExecutor(len(forms)) as pool:
        runs = [pool.submit(_run, form, folder, interrupted, asked) for form in forms]
        try:
            reports = [run.result() for run in runs]
        except KeyboardInterrupt:  # the sites end what they started, by its id
            interrupted.set()
            wait(runs)
    if interrupted.is_set():
        _say(f"interrupted: nothing was judged; the logs are in {folder}")
        return INTERRUPTED
    for report in reports:
        for line in [*lines_of(report), *(schedule_lines(report) if asked.schedule or report.problems else ())]:
            _say(line)
    violations = sum(len(report.problems) for report in reports)
    if violations:
        told = "\n".join(problem for report in reports for problem in report.problems)
        (folder / "violations.txt").write_text(told, encoding="utf-8")
        _say(f"{violations} violations with seed {asked.seed}; all of them, and what ran, are in {folder}")
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    _say(f"no violation with seed {asked.seed}")
    return 0


def _outages(folder: Path, *, repeats: int) -> int:
    _say("| site | fault | lasts | median, s without a 200 | worst |\n|---|---|---|---|---|")
    for outage in measure(folder, repeats=repeats):
        _say(outage.line())
    shutil.rmtree(folder, ignore_errors=True)
    return 0


def _run(form: SiteForm, folder: Path, interrupted: threading.Event, asked: argparse.Namespace) -> Report:
    try:
        return run_site(
            form, folder / form.name, interrupted, Draw(asked.seed, asked.seconds, asked.pause, asked.without)
        )
    except Exception:  # noqa: BLE001 - one site's failure is told, and the other's table is printed too
        return Report(form, problems=[f"the run itself failed: {traceback.format_exc()}"])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="draws callers and faults")  # noqa: S311
    parser.add_argument("--seconds", type=float, default=120, help="from the first caller to the last fault's end")
    parser.add_argument("--site", choices=["all", *(form.name for form in FORMS)], default="all")
    parser.add_argument("--pause", type=float, default=0.8, help="a caller's mean pause between two calls, in seconds")
    parser.add_argument("--without", default="", metavar="TEXT,…", help="leave out such kinds of faults")
    parser.add_argument("--outages", action="store_true", help="measure how long each fault keeps callers out instead")
    parser.add_argument("--repeats", type=int, default=3, help="of each fault, with --outages")
    parser.add_argument("--schedule", action="store_true", help="print the schedule also where all is well")
    return parser


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - its output


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
