"""Questions of workers to the ledger process: every one gets an answer or none, and none gets another's."""

from __future__ import annotations

import asyncio
from contextlib import closing
from time import monotonic
from typing import TYPE_CHECKING, Final

import pytest

from gateway.policy.job import SETTLED, Job
from gateway.state.job_channel import (
    ANSWER_SECONDS,
    BEHIND,
    KNOWN,
    UNAVAILABLE,
    UNKNOWN,
    JobChannel,
    Question,
    read_answers,
    read_questions,
    send_answers,
    send_question,
)
from gateway.state.job_search import MOST_ASKED, LedgerQuestions

if TYPE_CHECKING:
    from collections.abc import Iterator

JOB: Final = Job("design", "web", "fal-ai/flux/dev", "0" * 32, 1_793_880_000_000_000, 5, 7, "images", SETTLED)


@pytest.fixture
def channel() -> Iterator[JobChannel]:
    """Return a channel of two workers."""
    with closing(JobChannel(workers=2)) as made:
        yield made


def asked(worker: int, number: int, job_id: str, *, ago: float = 0.0, since: float = 0.0) -> Question:
    """Return a question."""
    return Question(worker, number, monotonic() - ago, since, job_id)


def test_each_worker_gets_the_answers_to_its_own_questions(channel: JobChannel) -> None:
    """A job with all that it has, one that is unknown; ids of any characters."""
    questions = [asked(0, 1, "a"), asked(1, 2**62, "ü/\ud800"), asked(0, 3, "c")]
    assert all(send_question(channel, question) for question in questions)
    assert read_questions(channel) == questions
    send_answers(channel, questions, {"a": JOB, "ü/\ud800": JOB}, complete_until=0.0)
    assert read_answers(channel.answered[0]) == [(1, (KNOWN, JOB)), (3, (UNKNOWN, None))]
    assert read_answers(channel.answered[1]) == [(2**62, (KNOWN, JOB))]


def test_what_is_not_known_for_certain_is_no_answer(channel: JobChannel) -> None:
    """No database: nothing is known. Journals behind: what is found is known, what is not found may exist."""
    questions = [asked(0, 1, "a", since=7.0), asked(0, 2, "b", since=7.0), asked(0, 3, "c", since=6.0)]
    send_answers(channel, questions[:1], None, complete_until=8.0)
    send_answers(channel, questions, {"a": JOB}, complete_until=6.5)
    assert read_answers(channel.answered[0]) == [
        (1, (UNAVAILABLE, None)),
        (1, (KNOWN, JOB)),
        (2, (BEHIND, None)),
        (3, (UNKNOWN, None)),
    ]


def test_a_question_that_nobody_waits_for_is_dropped(channel: JobChannel) -> None:
    """Its worker has given it up by then; a ledger process that was down does not work through the past."""
    assert send_question(channel, asked(0, 1, "old", ago=ANSWER_SECONDS))
    fresh = asked(0, 2, "new")
    assert send_question(channel, fresh)
    assert read_questions(channel) == [fresh]


def test_questions_nobody_reads_are_bounded(channel: JobChannel) -> None:
    """A ledger process that hangs fills a socket's buffer, and what finds no room counts as not answered."""

    async def scenario() -> list[tuple[int, Job | None]]:
        told: list[tuple[int, Job | None]] = []
        all_told = asyncio.Event()

        def take(known: int, job: Job | None) -> None:
            told.append((known, job))
            if len(told) == 2 * MOST_ASKED:
                all_told.set()

        with closing(LedgerQuestions(channel, 0)) as questions:
            for number in range(2 * MOST_ASKED):
                questions.find(f"job-{number}", 0.0, take)
            await asyncio.sleep(0)
            assert len(told) >= MOST_ASKED, "those beyond the bound are told at once"
            await all_told.wait()  # the others when their time is over
        return told

    assert set(asyncio.run(scenario())) == {(UNAVAILABLE, None)}


def test_an_answer_to_a_worker_that_is_gone_reaches_nobody(channel: JobChannel) -> None:
    """Who takes its slot counts from another number, and reads past what came for its predecessor."""

    async def scenario() -> tuple[int, Job | None]:
        told = asyncio.get_running_loop().create_future()
        send_answers(channel, [asked(0, 1, "a")], {"a": JOB}, complete_until=0.0)
        with closing(LedgerQuestions(channel, 0)) as questions:
            questions.find("b", 0.0, lambda *answer: told.set_result(answer))
            (question,) = read_questions(channel)
            send_answers(channel, [question], {}, complete_until=0.0)
            answer: tuple[int, Job | None] = await told
        return answer

    assert asyncio.run(scenario()) == (UNKNOWN, None)
