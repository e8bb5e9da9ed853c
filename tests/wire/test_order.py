"""The order of the checks: a request that is wrong in several ways gets the earliest answer."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Final

import pytest

from tests.harness.messages import RUN_TARGET, proxy_head
from tests.wire.stage import MOST_BYTES, assert_problem

if TYPE_CHECKING:
    from collections.abc import Collection

    from tests.wire.stage import Stage


@dataclass(frozen=True, slots=True)
class Flaw:
    """One way to be wrong, and its answer."""

    name: str
    status: int
    error_type: str


HEAD: Final = Flaw("head", 431, "head_too_large")
METHOD: Final = Flaw("method", 405, "method_not_allowed")
CREDENTIAL: Final = Flaw("credential", 401, "credential_missing")
DUPLICATE: Final = Flaw("duplicate", 400, "request_invalid")
UPGRADE: Final = Flaw("upgrade", 426, "upgrade_refused")
MISSING: Final = Flaw("missing", 400, "target_missing")
INVALID: Final = Flaw("invalid", 412, "target_invalid")
NOT_ALLOWED: Final = Flaw("not allowed", 412, "target_not_allowed")
ENDPOINT: Final = Flaw("endpoint", 403, "endpoint_not_allowed")
TYPE: Final = Flaw("type", 415, "unsupported_media_type")
SIZE: Final = Flaw("size", 413, "content_too_large")
IN_ORDER: Final = (HEAD, METHOD, CREDENTIAL, DUPLICATE, UPGRADE, MISSING, INVALID, NOT_ALLOWED, ENDPOINT, TYPE, SIZE)

TARGETS: Final = (
    (MISSING, None),
    (INVALID, "https://fal.run/fal-ai/../other"),
    (NOT_ALLOWED, "https://evil.example/fal-ai/flux/dev"),
    (ENDPOINT, "https://fal.run/other/model"),
)


def request_with(stage: Stage, flaws: Collection[Flaw]) -> bytes:
    """Return a request's head with these flaws and no others; where two cannot be told apart, the earlier is there."""
    target = next((text for flaw, text in TARGETS if flaw in flaws), RUN_TARGET)
    fields = [("Content-Length", str(MOST_BYTES + 1 if SIZE in flaws else 0))]
    fields += [("X-Padding", "x" * 17_000)] if HEAD in flaws else []
    fields += [("Content-Encoding", "gzip")] * 2 if DUPLICATE in flaws else []
    fields += [("Upgrade", "websocket")] if UPGRADE in flaws else []
    return proxy_head(
        target,
        key=None if CREDENTIAL in flaws else stage.keys.narrow,
        method="PATCH" if METHOD in flaws else "POST",
        fields=fields,
        content_type="text/plain" if TYPE in flaws else "application/json",
    )


@pytest.mark.parametrize("flaw", IN_ORDER, ids=lambda flaw: flaw.name)
def test_each_flaw_alone_gets_its_answer(stage: Stage, flaw: Flaw) -> None:
    """The flaws of this file are what they are called: without any the request passes, with one it gets its answer."""
    assert stage.ask(request_with(stage, [])).status == 200
    with stage.untouched():
        assert_problem(stage.ask(request_with(stage, [flaw])), flaw.status, flaw.error_type)


@pytest.mark.parametrize(
    ("earlier", "later"), [*combinations(IN_ORDER, 2)], ids=lambda flaw: flaw.name.replace(" ", "_")
)
def test_the_earlier_of_two_answers_is_given(stage: Stage, earlier: Flaw, later: Flaw) -> None:
    """Of two flaws the one that is checked earlier decides."""
    with stage.untouched():
        assert_problem(stage.ask(request_with(stage, [earlier, later])), earlier.status, earlier.error_type)


@pytest.mark.parametrize("first", range(len(IN_ORDER)))
def test_with_everything_wrong_from_a_point_on_that_point_decides(stage: Stage, first: int) -> None:
    """However many flaws there are, the first in the order decides."""
    flaws = IN_ORDER[first:]
    with stage.untouched():
        assert_problem(stage.ask(request_with(stage, flaws)), flaws[0].status, flaws[0].error_type)


@pytest.mark.parametrize("bad_key", [None, "nobody"])
def test_a_stranger_cannot_probe_the_allow_list(stage: Stage, bad_key: str | None) -> None:
    """Without a valid key every target, allowed or not, gets the very same answer."""
    targets = (None, RUN_TARGET, "https://evil.example/", "nonsense", "https://fal.run/other/model")
    answers = []
    for target in targets:
        answer = stage.ask(proxy_head(target, key=bad_key, fields=[("Content-Length", "0")]))
        answers.append(answer.body.replace(answer.json()["request_id"].encode(), b""))
        assert answer.status == 401
    assert len(set(answers)) == 1


def test_the_path_comes_before_everything_but_the_head(stage: Stage) -> None:
    """Elsewhere there is no proxy, so nothing about its rules is told there."""
    everything = request_with(stage, [flaw for flaw in IN_ORDER if flaw is not HEAD])
    with stage.untouched():
        assert_problem(stage.ask(everything.replace(b"/api/fal/proxy", b"/metrics", 1)), 404, "path_unknown")
