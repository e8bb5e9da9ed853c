"""`python -m benchmarks`: which cases, which systems, how long; then the run, its report and its picture.

Only a run of everything at its full extent replaces the published results in this folder; any other one leaves its
report under `.tools/bench/latest`, so that a look at one case never passes for the table.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import resource
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.case import QUICK, Case, Extent
from benchmarks.catalog import catalog
from benchmarks.chart import draw
from benchmarks.machine import describe_machine
from benchmarks.origin import OriginError
from benchmarks.places import HERE, TOOLS, find_program
from benchmarks.report import CHART_NAME, render
from benchmarks.results import Results, read_results, write_results
from benchmarks.rounds import Run
from benchmarks.running import Cores
from benchmarks.systems import ALL, GATEWAY

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

LATEST: Final = TOOLS / "latest"
EXIT_FAILED: Final = 1
_FULL: Final = Extent()
_CORES_OF_LOAD: Final = 3
_RESULTS_NAME: Final = "results.json"
_REPORT_NAME: Final = "RESULTS.md"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark as the command line says; return the exit code."""
    arguments = _parser().parse_args(argv)
    extent = _extent(arguments)
    cases = catalog(extent)
    if arguments.list:
        sys.stdout.write("".join(f"{case.key:14} {case.title}\n" for case in cases))
        return 0
    folder = arguments.output or (HERE if _is_published(arguments) else LATEST)
    if arguments.render:
        _publish(read_results(folder / _RESULTS_NAME), cases, folder)
        return 0
    try:
        results = _run(_chosen(cases, arguments.cases, arguments.systems), extent)
    except OriginError as fault:
        sys.stderr.write(f"benchmark: {fault}\n")
        return EXIT_FAILED
    if GATEWAY.name in results.left_out:
        sys.stderr.write(f"benchmark: the gateway itself: {results.left_out[GATEWAY.name]}\n")
        return EXIT_FAILED
    _publish(results, cases, folder)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=_names, metavar="A,B", help="only these cases (see --list)")
    names = ", ".join(system.name for system in ALL)
    parser.add_argument("--systems", type=_names, metavar="A,B", help=f"only these systems of: {names}")
    parser.add_argument("--rounds", type=int, metavar="N", help=f"rounds of each case (default: {_FULL.rounds})")
    parser.add_argument(
        "--seconds", type=float, metavar="S", help=f"of small POSTs in a round (default: {_FULL.post_seconds:.0f})"
    )
    parser.add_argument(
        "--soak", type=float, metavar="S", help=f"seconds of the soak (default: {_FULL.soak_seconds:.0f})"
    )
    parser.add_argument("--quick", action="store_true", help="everything, briefly: shows whether it works")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="where report, picture and figures go")
    parser.add_argument("--list", action="store_true", help="print the cases and stop")
    parser.add_argument("--render", action="store_true", help="write report and picture anew from the figures there")
    return parser


def _names(text: str) -> frozenset[str]:
    return frozenset(name.strip() for name in text.split(",") if name.strip())


def _extent(arguments: argparse.Namespace) -> Extent:
    extent = QUICK if arguments.quick else _FULL
    asked = {
        "rounds": arguments.rounds,
        "post_seconds": arguments.seconds,
        "soak_seconds": arguments.soak,
    }
    return replace(extent, **{name: value for name, value in asked.items() if value is not None})


def _is_published(arguments: argparse.Namespace) -> bool:
    return not (arguments.quick or arguments.cases or arguments.systems or arguments.rounds or arguments.seconds)


def _chosen(cases: Sequence[Case], keys: frozenset[str] | None, systems: frozenset[str] | None) -> list[Case]:
    """Return the cases asked for, with the systems asked for; SystemExit for a name that there is not."""
    _check_names(keys, {case.key for case in cases}, what="case")
    _check_names(systems, {system.name for system in ALL}, what="system")
    every = frozenset(system.name for system in ALL)
    wanted = [case for case in cases if not keys or case.key in keys]
    unwanted = every - systems if systems else frozenset[str]()
    narrowed = [
        replace(case, entries=tuple(entry for entry in case.entries if entry.label not in unwanted)) for case in wanted
    ]
    return [case for case in narrowed if case.entries]


def _check_names(asked: frozenset[str] | None, known: set[str], *, what: str) -> None:
    if unknown := sorted((asked or frozenset()) - known):
        raise SystemExit(f"no such {what}: {', '.join(unknown)}")


def _run(cases: Sequence[Case], extent: Extent) -> Results:
    if find_program("wrk") is None:
        raise OriginError("wrk is not installed: `tools/setup.sh bench` installs what the benchmark needs")
    machine, cores = describe_machine(), _cores()
    os.sched_setaffinity(0, cores.load)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    signal.signal(signal.SIGTERM, _end)
    results = Results(machine, _settings(extent))
    Run(results, extent=extent, cores=cores).measure_all(cases)
    return results


def _end(_number: int, _frame: FrameType | None) -> None:
    """Leave by an exception: everything that was started is stopped on the way out."""
    raise SystemExit(128 + signal.SIGTERM)


def _cores() -> Cores:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) == 1:
        sys.stderr.write("benchmark: one core only; load and system share it, so only CPU times mean something\n")
        return Cores((cores[0],), (cores[0],))
    return Cores((cores[0],), tuple(cores[1 : 1 + _CORES_OF_LOAD]))


def _settings(extent: Extent) -> dict[str, str]:
    posts, soak = f"{extent.post_seconds:.0f} s of small POSTs in each", f"{extent.soak_seconds:.0f} s of soak"
    said = f"rounds: {extent.rounds}, {posts}, {soak}"
    return {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "run": f"{said} (QUICK: not for reading)" if not extent.fresh else said,
    }


def _publish(results: Results, cases: Sequence[Case], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_results(results, folder / _RESULTS_NAME)
    report = render(results, cases)
    (folder / _REPORT_NAME).write_text(report, encoding="utf-8")
    (folder / CHART_NAME).write_text(draw(results), encoding="utf-8")
    sys.stdout.write(report)


if __name__ == "__main__":
    sys.exit(main())
