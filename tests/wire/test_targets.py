"""Hostile targets through the real gateway: refused before any connection is made; good ones arrive byte for byte."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import pytest

from tests.harness.client import RawClient
from tests.harness.messages import proxy_head
from tests.policy.targets import GOOD, INVALID, NOT_ALLOWED
from tests.wire.stage import assert_problem

if TYPE_CHECKING:
    from tests.wire.stage import Stage

CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
BLANK: Final = b" \t"

TWO_FIELDS: Final = [target for target in INVALID if b": " in target.partition(b"\r\n")[2]]
"""What is no one value, but a target and another field."""
NO_VALUE: Final = [target for target in INVALID if CONTROL.search(target) and target not in TWO_FIELDS]
"""What cannot be the value of a field at all (RFC 9110, section 5.5)."""
IN_BLANKS: Final = [target for target in INVALID if not CONTROL.search(target) and target != target.strip(BLANK)]
"""What loses its blanks on the way, as every field's value does."""
HOSTILE: Final = [t for t in INVALID if t and not CONTROL.search(t) and t == t.strip(BLANK)]


def head_with(stage: Stage, target: bytes) -> bytes:
    """Return a request's head that names a target in any bytes."""
    head = proxy_head(None, key=stage.keys.full, fields=[("Content-Length", "0")])
    return head.replace(b"\r\n", b"\r\nx-fal-target-url: " + target + b"\r\n", 1)


def test_there_are_enough_of_them() -> None:
    """Every hostile target of the grammar's own table comes through here, at least 120 of them as a whole value."""
    assert len(HOSTILE) + len(NOT_ALLOWED) >= 120
    assert len({b"", *TWO_FIELDS, *NO_VALUE, *IN_BLANKS, *HOSTILE}) == len(INVALID)


@pytest.mark.parametrize("target", HOSTILE)
def test_a_hostile_target_makes_no_connection(stage: Stage, target: bytes) -> None:
    """What the grammar refuses is 412, and the origin, to which every host here would lead, hears nothing."""
    with stage.untouched():
        assert_problem(stage.ask(head_with(stage, target)), 412, "target_invalid")


@pytest.mark.parametrize("target", NOT_ALLOWED)
def test_a_target_off_the_list_makes_no_connection(stage: Stage, target: bytes) -> None:
    """What no pattern fits is 412 as well, and nothing is resolved or reached."""
    with stage.untouched():
        assert_problem(stage.ask(head_with(stage, target)), 412, "target_not_allowed")


@pytest.mark.parametrize("target", NO_VALUE)
def test_a_target_with_controls_never_becomes_a_request(stage: Stage, target: bytes) -> None:
    """Controls and single line ends in a field are 400, and the connection ends."""
    with stage.untouched(), RawClient(stage.gateway.port) as client:
        assert_problem(client.ask(head_with(stage, target)), 400, "request_invalid")
        assert client.left_by_peer()


@pytest.mark.parametrize("target", TWO_FIELDS)
def test_a_line_end_in_a_target_adds_nothing_to_what_is_forwarded(stage: Stage, target: bytes) -> None:
    """What follows a line end is another field of the client's own request: judged as one, and never the origin's."""
    before = len(stage.origin.requests)
    response = stage.ask(head_with(stage, target))
    second, _, value = target.partition(b"\r\n")[2].partition(b": ")
    for received in stage.origin.requests[before:]:
        assert (second, value) not in received.head.fields
        assert b"https://fal.run" + received.target == target.partition(b"\r\n")[0]
    assert response.status in {200, 400}


@pytest.mark.parametrize("target", IN_BLANKS)
def test_blanks_around_a_target_are_the_fields_and_not_its_own(stage: Stage, target: bytes) -> None:
    """Blanks at the ends are not part of a value (RFC 9110, section 5.5): judged is what is left."""
    alone = stage.ask(head_with(stage, target.strip(BLANK)))
    around = stage.ask(head_with(stage, target))
    assert (alone.status, alone.field("x-fal-error-type")) == (around.status, around.field("x-fal-error-type"))


# A token request has content that is judged, and sent on as the gateway writes it (test_tokens.py).
@pytest.mark.parametrize("target", [target for target in GOOD if b"/tokens/" not in target])
def test_a_good_target_arrives_byte_for_byte(stage: Stage, target: bytes) -> None:
    """The origin gets path and query as they were sent, escapes of the path in upper case, and the host as Host."""
    host, path = re.fullmatch(rb"https://([a-z.]+)(?::443)?(/.*)", target).groups()  # type: ignore[union-attr]
    response, received = stage.forwarded(head_with(stage, target))
    before_query, mark, query = path.partition(b"?")
    upper = re.sub(rb"%..", lambda escape: escape[0].upper(), before_query)
    assert response.status == 200
    assert received.target == upper + mark + query
    assert received.head.value(b"host") == host


def test_what_was_refused_once_is_refused_again(stage: Stage) -> None:
    """Remembered verdicts are those of the same text: a good target lets no neighbour in."""
    good, bad = b"https://fal.run/fal-ai/flux/dev", b"https://fal.run/fal-ai/flux/../dev"
    statuses = [stage.ask(head_with(stage, target)).status for target in (good, bad, good, bad, bad, good)]
    assert statuses == [200, 412, 200, 412, 412, 200]
