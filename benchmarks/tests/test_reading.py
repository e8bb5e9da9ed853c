"""What is read from an answer, from wrk and from /proc is what is there."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

import pytest

from benchmarks.load.answer import AnswerReader
from benchmarks.load.wrk import LoadError, read_posts
from benchmarks.processes import Pinned, cpu_seconds, family, own_megabytes, resident_megabytes

if TYPE_CHECKING:
    from pathlib import Path

LENGTH = b"HTTP/1.1 201 Created\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
NO_CONTENT = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize("answer", [LENGTH, CHUNKED, NO_CONTENT])
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_an_answer_is_done_with_its_last_byte(answer: bytes, step: int) -> None:
    """Cut into any pieces, an answer is done when its last byte is in, and not before."""
    reader = AnswerReader()
    for begin in range(0, len(answer), step):
        assert not reader.is_done
        reader.take(answer[begin : begin + step])
    assert reader.is_done
    assert reader.status == int(answer.split()[1])


def test_posts_are_read_from_the_last_line() -> None:
    """Much is said by wrk; the figures are in the JSON behind it."""
    line = '{"requests": 10, "seconds": 2.0, "p50_ms": 1.5, "p99_ms": 3.0, "bad_statuses": 1, "broken": 0}'
    posts = read_posts(f"Running 2s test\n  10 requests\n\n{line}\n")
    assert (posts.requests, posts.seconds, posts.bad_statuses) == (10, 2.0, 1)


@pytest.mark.parametrize(
    "said",
    [
        "",
        "unable to connect",
        '{"requests": 9, "seconds": 1, "p50_ms": 1, "p99_ms": 1, "bad_statuses": 9, "broken": 0}',
    ],
)
def test_load_that_met_no_good_answer_is_an_error(said: str) -> None:
    """Where nothing was answered well there is no figure, not a fast one."""
    with pytest.raises(LoadError):
        read_posts(said)


def test_a_family_is_charged_whole(tmp_path: Path) -> None:
    """CPU time and memory of a child count for the process that was started."""
    burn = "import time\nwhile time.process_time() < 0.3: pass\ntime.sleep(60)"
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}])"
    with Pinned(
        [sys.executable, "-c", program], cores=sorted(os.sched_getaffinity(0)), output=tmp_path / "o"
    ) as parent:
        deadline = time.monotonic() + 20
        while cpu_seconds(family(parent.pid)) < 0.3 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert len(family(parent.pid)) == 2
        assert cpu_seconds(family(parent.pid)) >= 0.3 > cpu_seconds([parent.pid])
        assert resident_megabytes(family(parent.pid)) > resident_megabytes([parent.pid]) > 0
        assert 0 < own_megabytes(family(parent.pid)) < resident_megabytes(family(parent.pid))
    assert cpu_seconds(family(parent.pid)) == 0
