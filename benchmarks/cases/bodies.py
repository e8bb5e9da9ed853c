"""Large bodies, 8 at a time: what a megabyte costs, and how much memory the transfers take."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from benchmarks.case import Case, Column, Entry, Figures, Stage
from benchmarks.load.transfers import Done, json_content, run_transfers
from benchmarks.processes import forget_peak, peak_megabytes, resident_megabytes
from benchmarks.systems import ALL

if TYPE_CHECKING:
    from benchmarks.case import Measure

AT_ONCE: Final = 8
PATIENCE_SECONDS: Final = 60.0
_MEGABYTE: Final = 1_000_000
_COLUMNS: Final = (
    Column("mb_per_second", "MB/s", better="more"),
    Column("mb_per_cpu_second", "MB per CPU-second", better="more"),
    Column("growth_mb", "memory growth MB, all 8", 1, better="less"),
)


def measure_upload(stage: Stage) -> Figures:
    """Send JSON of `bulk_bytes` eight times at once."""
    content = json_content(stage.extent.bulk_bytes)
    head = stage.running.route.head("POST", "/bench/sink", content_length=len(content))
    return _measure(stage, [(head, content)] * AT_ONCE)


def measure_download(stage: Stage, *, kind: str) -> Figures:
    """Take `bulk_bytes` eight times at once; `kind` is the origin's word for the framing."""
    head = stage.running.route.head("GET", f"/bench/{kind}/{stage.extent.bulk_bytes}")
    return _measure(stage, [(head, b"")] * AT_ONCE)


def _measure(stage: Stage, requests: list[tuple[bytes, bytes]]) -> Figures:
    running = stage.running
    forget_peak(running.pids)
    resident, cpu = resident_megabytes(running.pids), running.cpu
    done: Done = run_transfers(running.route, requests, patience_seconds=PATIENCE_SECONDS)
    cpu = running.cpu - cpu
    megabytes = AT_ONCE * stage.extent.bulk_bytes / _MEGABYTE
    return {
        "mb_per_second": megabytes / done.seconds,
        "mb_per_cpu_second": megabytes / cpu if cpu else float("inf"),
        "growth_mb": max(0.0, peak_megabytes(running.pids) - resident),
    }


def _case(key: str, title: str, measure: Measure) -> Case:
    return Case(
        key=key,
        title=title,
        how="8 transfers of 50 MB at once; the memory is the highest resident size less that before",
        columns=_COLUMNS,
        entries=tuple(Entry(system.name, system, measure) for system in ALL),
        group="bodies",
        ratio="mb_per_cpu_second",
    )


# Downloads first: an upload lets some systems grow for good, which would hide what a download takes.
CASES: Final = (
    _case("down", "50 MB down, length known", partial(measure_download, kind="down")),
    _case("down-chunked", "50 MB down, chunked", partial(measure_download, kind="chunked")),
    _case("up", "50 MB up", measure_upload),
)
