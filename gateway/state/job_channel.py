"""Questions of workers to the ledger process: who submitted a job? And its answers.

The decisions: workers have no database, which would cost each of them 36 MB; the ledger process has one. Its answers
come from a thread, so a worker waits for no batch that is being written. Sockets that keep the ends of messages are
made in pairs before the first fork and closed by none, so either side may die and start again: what was sent to the
dead is answered late or not at all, and has been given up by then. Full buffers count as no answer.
"""

from __future__ import annotations

import json
import select
import socket
import struct
from time import monotonic
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.policy.job import Job

if TYPE_CHECKING:
    from collections.abc import Mapping

ANSWER_SECONDS: Final = 1.0
"""After so long a worker waits no more, and the ledger process drops a question that it has not begun with."""

MOST_AT_ONCE: Final = 200
_MOST_BYTES: Final = 8_192
_QUESTION: Final = struct.Struct("<HQdd")  # worker, number, when it was asked, since when (monotonic seconds)
_ANSWER: Final = struct.Struct("<QB")  # number, what is known
UNAVAILABLE: Final = 0
"""The ledger does not answer."""

BEHIND: Final = 1
"""It has no row of the job, and may lack one: not all journals are in it yet."""

UNKNOWN: Final = 2
"""No gateway that shares it submitted the job."""

KNOWN: Final = 3

Finding = tuple[int, Job | None]
"""What is known of a job: one of the four above, and the job where it is known."""


class Question(NamedTuple):
    """One question: which worker asks, its number there, and the job's id.

    `asked_at`, and `since`: a job that was submitted before that is to be in the ledger. Monotonic seconds.
    """

    worker: int
    number: int
    asked_at: float
    since: float
    job_id: str


class JobChannel:
    """The sockets; made before the first fork."""

    def __init__(self, *, workers: int) -> None:
        self.asking, self.asked = _pair()
        pairs = [_pair() for _ in range(workers)]
        self.answering: Final = [here for here, _ in pairs]
        self.answered: Final = [there for _, there in pairs]

    def close(self) -> None:
        """Close this process's ends."""
        for end in (self.asking, self.asked, *self.answering, *self.answered):
            end.close()


def _pair() -> tuple[socket.socket, socket.socket]:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    one.setblocking(False)  # noqa: FBT003 (the standard library's signature)
    other.setblocking(False)  # noqa: FBT003 (as above)
    return one, other


# -- in a worker ------------------------------------------------------------------------------------------------------


def send_question(channel: JobChannel, question: Question) -> bool:
    """Send a question; False where it cannot be sent now."""
    head = _QUESTION.pack(question.worker, question.number, question.asked_at, question.since)
    try:
        channel.asking.send(head + question.job_id.encode("utf-8", "surrogatepass"))
    except OSError:
        return False
    return True


def read_answers(end: socket.socket) -> list[tuple[int, Finding]]:
    """Return what has come: a question's number, and what is known."""
    found: list[tuple[int, Finding]] = []
    while len(found) < MOST_AT_ONCE:
        try:
            message = end.recv(_MOST_BYTES)
        except OSError:
            break
        number, known = _ANSWER.unpack_from(message)
        job = Job(*json.loads(message[_ANSWER.size :])) if known == KNOWN else None
        found.append((number, (known, job)))
    return found


# -- in the ledger process --------------------------------------------------------------------------------------------


def read_questions(channel: JobChannel) -> list[Question]:
    """Wait for questions, a second at most, and return those that a worker still waits for."""
    found: list[Question] = []
    waiting = select.poll()
    waiting.register(channel.asked, select.POLLIN)
    waiting.poll(ANSWER_SECONDS * 1000)
    while len(found) < MOST_AT_ONCE:
        try:
            found.append(_question(channel.asked.recv(_MOST_BYTES)))
        except OSError:  # nothing more has come
            break
    return [question for question in found if monotonic() - question.asked_at < ANSWER_SECONDS]


def send_answers(
    channel: JobChannel, questions: list[Question], jobs: Mapping[str, Job] | None, *, complete_until: float
) -> None:
    """Answer questions; `jobs` None: no answer can be had.

    `complete_until`: what was submitted before that is in the ledger, monotonic seconds.
    """
    for question in questions:
        job = jobs.get(question.job_id) if jobs is not None else None
        message = _ANSWER.pack(question.number, _unknown(question, complete_until) if jobs is not None else UNAVAILABLE)
        if job is not None:
            message = _ANSWER.pack(question.number, KNOWN) + json.dumps(_fields(job)).encode()
        try:
            channel.answering[question.worker].send(message)
        except OSError:  # a worker that does not read; it counts as no answer
            continue


def _unknown(question: Question, complete_until: float) -> int:
    return UNKNOWN if question.since <= complete_until else BEHIND


def _question(message: bytes) -> Question:
    worker, number, asked_at, since = _QUESTION.unpack_from(message)
    return Question(worker, number, asked_at, since, message[_QUESTION.size :].decode("utf-8", "surrogatepass"))


def _fields(job: Job) -> tuple[object, ...]:
    numbers = (job.admitted_at_us, job.estimate_ns, job.picodollars)
    return (job.team, job.key, job.endpoint, job.purchase, *numbers, job.unit, job.state)
