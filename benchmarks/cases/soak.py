"""A long moderate load of everything at once on the gateway, to see whether its memory stays flat.

Small POSTs with pauses, event streams, slow readers, and every few seconds large bodies both ways and a caller that
leaves. Memory and descriptors are looked at once a second; the first third of the time counts as warming up.
"""

from __future__ import annotations

import statistics
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from benchmarks.case import Case, Column, Entry, Figures, Stage
from benchmarks.load.events import EventStreams
from benchmarks.load.leaving import PHASES, leave
from benchmarks.load.readers import SlowReaders
from benchmarks.load.transfers import json_content, run_transfers
from benchmarks.load.wrk import LoadError, finish_posts, start_posts
from benchmarks.processes import descriptors, resident_megabytes
from benchmarks.systems import GATEWAY

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_POST_CONNECTIONS: Final = 32
_PAUSE_MS: Final = 75
_STREAMS: Final = 100
_READERS: Final = 20
_BULK_BYTES: Final = 20_000_000
_BULK_EVERY_SECONDS: Final = 5.0
_BULK_SECONDS: Final = 30.0
_READ_PATH: Final = "/bench/down/20000000"
_EVENTS_PATH: Final = "/bench/events/3600/1000/requests/1"  # free: over when its caller has left


@dataclass(frozen=True, slots=True)
class Sample:
    """What the gateway's processes held at one moment."""

    megabytes: float
    descriptors: int


class Aside:
    """Work in a thread of its own; what it fails with is raised by `join`."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._work = work
        self._fault: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait for its end; raises LoadError or OSError where the work did."""
        self._thread.join()
        if self._fault is not None:
            raise self._fault

    def _run(self) -> None:
        try:
            self._work()
        except (LoadError, OSError) as fault:
            self._fault = fault


def measure_soak(stage: Stage) -> Figures:
    """Run the mixed load for the whole time; LoadError where any part of it fails."""
    seconds, running = stage.extent.soak_seconds, stage.running
    begin, cpu = time.monotonic(), running.cpu
    samples: list[Sample] = []
    with ExitStack() as stack:
        streams = stack.enter_context(EventStreams(running.route, _EVENTS_PATH, number=_STREAMS))
        readers = stack.enter_context(SlowReaders(running.route, _READ_PATH, number=_READERS))
        wrk = start_posts(
            running.route, connections=_POST_CONNECTIONS, seconds=seconds, keys=running.keys, pause_ms=_PAUSE_MS
        )
        stack.callback(wrk.kill)
        beside = [Aside(lambda: streams.watch(seconds)), Aside(lambda: readers.read_for(seconds))]
        _move_bodies(stage, samples, end=begin + seconds)
        for work in beside:
            work.join()
        posts = finish_posts(wrk)
    return {
        **_growth(samples, seconds=seconds),
        "posts": posts.requests,
        "readers_cut": readers.cut,
        "failed": posts.bad_statuses + posts.broken,
        "cpu_percent": 100 * (running.cpu - cpu) / seconds,
    }


def _move_bodies(stage: Stage, samples: list[Sample], *, end: float) -> None:
    """Move a large body each way every few seconds until `end`; look at the gateway once a second meanwhile."""
    route, content = stage.running.route, json_content(_BULK_BYTES)
    upload = (route.head("POST", "/bench/sink", content_length=len(content)), content)
    download = (route.head("GET", f"/bench/chunked/{_BULK_BYTES}"), b"")
    next_bodies = time.monotonic()
    while (now := time.monotonic()) < end:
        if now >= next_bodies:
            run_transfers(route, [upload, download], patience_seconds=_BULK_SECONDS)
            for phase in PHASES:
                leave(route, stage.origin, phase)
            next_bodies = now + _BULK_EVERY_SECONDS
        samples.append(_sample(stage))
        time.sleep(1.0)


def _sample(stage: Stage) -> Sample:
    pids = stage.running.pids
    return Sample(resident_megabytes(pids), descriptors(pids))


def _growth(samples: Sequence[Sample], *, seconds: float) -> Figures:
    """Compare the second third's beginning with the end, each the median over a tenth of all samples."""
    width = max(1, len(samples) // 10)
    third = len(samples) // 3
    early, late = samples[third : third + width], samples[-width:]
    begin, end = (statistics.median(sample.megabytes for sample in part) for part in (early, late))
    held = [statistics.median(sample.descriptors for sample in part) for part in (early, late)]
    return {
        "seconds": seconds,
        "begin_mb": begin,
        "end_mb": end,
        "growth_mb": end - begin,
        "descriptors_growth": held[1] - held[0],
    }


CASES: Final = (
    Case(
        key="soak",
        title="Soak: everything at once, moderately",
        how="POSTs with pauses on 32 connections, 100 event streams, 20 slow readers; every 5 s a body of 20 MB each"
        " way and three callers that leave; growth from one third of the time to the end",
        columns=(
            Column("seconds", "seconds"),
            Column("begin_mb", "resident MB, early", 1),
            Column("end_mb", "resident MB, end", 1),
            Column("growth_mb", "growth MB", 1),
            Column("descriptors_growth", "growth in descriptors"),
            Column("posts", "POSTs"),
            Column("failed", "POSTs failed"),
            Column("readers_cut", "slow readers cut"),
            Column("cpu_percent", "CPU, % of a core"),
        ),
        entries=(Entry("gateway", GATEWAY, measure_soak),),
        group="soak",
        repeats=False,
    ),
)
