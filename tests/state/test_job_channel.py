"""Questions of workers to the ledger process: every one gets an answer or none, and none gets another's."""

from __future__ import annotations

import asyncio
from contextlib import closing
from time import monotonic
from typing import TYPE_CHECKING, Final

import pytest

from gateway.job_search import MOST_ASKED, LedgerQuestions
from gateway.policy.job import SETTLED, Job
from gateway.state.job_channel import (
    ANSWER_SECONDS,
    JobChannel,
    Question,
    read_answers,
    read_questions,
    send_answers,
    send_question,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

JOB: Final = Job("design", "web", "fal-ai/flux/dev", "0" * 32, 1_793_880_000_000_000, 5, 7, "images", SETTLED)


@pytest.fixture
def channel() -> Iterator[JobChannel]:
    """Return a channel of two workers."""
    with closing(JobChannel(workers=2)) as made:
        yield made


def asked(worker: int, number: int, job_id: str, *, ago: float = 0.0) -> Question:
    """Return a question."""
    return Question(worker, number, monotonic() - ago, job_id)


def test_each_worker_gets_the_answers_to_its_own_questions(channel: JobChannel) -> None:
    """A job with all that it has, one that is unknown; ids of any characters."""
    questions = [asked(0, 1, "a"), asked(1, 2**62, "ü/\ud800"), asked(0, 3, "c")]
    assert all(send_question(channel, question) for question in questions)
    assert read_questions(channel) == questions
    send_answers(channel, questions, {"a": JOB, "ü/\ud800": JOB}, is_complete=True)
    assert read_answers(channel.answered[0]) == [(1, JOB, True), (3, None, True)]
    assert read_answers(channel.answered[1]) == [(2**62, JOB, True)]


def test_what_is_not_known_for_certain_is_no_answer(channel: JobChannel) -> None:
    """No database: nothing is known. Journals behind: what is found is known, what is not found may exist."""
    questions = [asked(0, 1, "a"), asked(0, 2, "b")]
    send_answers(channel, questions, None, is_complete=True)
    send_answers(channel, questions, {"a": JOB}, is_complete=False)
    assert read_answers(channel.answered[0]) == [(1, None, False), (2, None, False), (1, JOB, True), (2, None, False)]


def test_a_question_that_nobody_waits_for_is_dropped(channel: JobChannel) -> None:
    """Its worker has given it up by then; a ledger process that was down does not work through the past."""
    assert send_question(channel, asked(0, 1, "old", ago=ANSWER_SECONDS))
    fresh = asked(0, 2, "new")
    assert send_question(channel, fresh)
    assert read_questions(channel) == [fresh]


def test_questions_nobody_reads_are_bounded(channel: JobChannel) -> None:
    """A ledger process that hangs fills a socket's buffer, and what finds no room counts as not answered."""

    async def scenario() -> list[tuple[Job | None, bool]]:
        told: list[tuple[Job | None, bool]] = []
        all_told = asyncio.Event()

        def take(job: Job | None, is_answered: bool) -> None:  # noqa: FBT001 (the seam's shape)
            told.append((job, is_answered))
            if len(told) == 2 * MOST_ASKED:
                all_told.set()

        with closing(LedgerQuestions(channel, 0)) as questions:
            for number in range(2 * MOST_ASKED):
                questions.find(f"job-{number}", take)
            await asyncio.sleep(0)
            assert len(told) >= MOST_ASKED, "those beyond the bound are told at once"
            await all_told.wait()  # the others when their time is over
        return told

    assert set(asyncio.run(scenario())) == {(None, False)}


def test_an_answer_to_a_worker_that_is_gone_reaches_nobody(channel: JobChannel) -> None:
    """Who takes its seat counts from another number, and reads past what came for its predecessor."""

    async def scenario() -> tuple[Job | None, bool]:
        told = asyncio.get_running_loop().create_future()
        send_answers(channel, [asked(0, 1, "a")], {"a": JOB}, is_complete=True)
        with closing(LedgerQuestions(channel, 0)) as questions:
            questions.find("b", lambda *answer: told.set_result(answer))
            (question,) = read_questions(channel)
            send_answers(channel, [question], {}, is_complete=True)
            answer: tuple[Job | None, bool] = await told
        return answer

    assert asyncio.run(scenario()) == (None, True)
