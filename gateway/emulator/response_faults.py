"""What faults do to the meaning of an answer: another status, another size or type, a redirect. Pure.

Decision: apart from delivery.py, so that "what is said" and "how it is brought" can be combined freely.
"""

from __future__ import annotations

from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING

from gateway.emulator.answers import BODILESS, Answer, bare, counted, failure, padded

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.emulator.faults import Faults


def twist(answer: Answer, faults: Faults, *, location: str, facts: Mapping[str, object]) -> Answer:
    """Return the answer as the faults want it; `facts` are what an answer of a made-up size still tells."""
    if faults.redirect is not None:
        return bare(faults.redirect, fields=(("location", location),))
    if faults.status is not None:
        answer = _with_status(answer, faults.status)
    if faults.size is not None and answer.status not in BODILESS:
        answer = _with_size(answer, faults.size, facts)
    return _with_type(answer, faults.type) if faults.type else answer


def expected_status(faults: Faults) -> int:
    """Return the status that the faults will lead to, known before there is an answer."""
    return faults.redirect or faults.status or HTTPStatus.OK


def _with_status(answer: Answer, status: int) -> Answer:
    if status >= HTTPStatus.BAD_REQUEST or status in BODILESS:
        return failure(status)
    return replace(answer, status=status)


def _with_size(answer: Answer, size: int, facts: Mapping[str, object]) -> Answer:
    length, pieces = padded(facts, size)
    fields = tuple(field for field in answer.fields if field[0] != "content-type")
    return replace(counted(length, pieces, content_type="application/json", fields=fields), status=answer.status)


def _with_type(answer: Answer, content_type: str) -> Answer:
    others = tuple(field for field in answer.fields if field[0] != "content-type")
    return replace(answer, fields=(("content-type", content_type), *others))
