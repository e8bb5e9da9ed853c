"""What the tests of limits share: keys under limits, callers that ask all the while, fields read as RFC 9651 has them.

The decision it carries: one gateway serves a whole module, and each rule has a key and a team of its own there, so that
no test spends what another one counts on.
"""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import http_sf

from tests.harness.policy import GatewayKey, policy_text
from tests.harness.wire import Truncated

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tests.harness.client import RawClient, Response

Row = dict[str, Any]
"""A limit as the policy file has it."""

LOST: Final = 0
"""Counted in place of a status where the connection broke instead of an answer."""


def requests(name: str = "submits", *, quota: int, window: int, **more: Any) -> Row:  # noqa: ANN401 - YAML values
    """Return a limit on requests; `window` in seconds, `more` as in the file (`class` and `burst`, say)."""
    return {"name": name, "unit": "requests", "quota": quota, "window": window, **more}


def slots(name: str = "parallel", *, quota: int, **more: Any) -> Row:  # noqa: ANN401 - YAML values
    """Return a limit on requests at once."""
    return {"name": name, "unit": "concurrent-requests", "quota": quota, **more}


def content(name: str = "upload", *, quota: int, window: int, **more: Any) -> Row:  # noqa: ANN401 - YAML values
    """Return a limit on bytes of request content."""
    return {"name": name, "unit": "content-bytes", "quota": quota, "window": window, **more}


def limited(name: str, *rows: Row) -> GatewayKey:
    """Return a key under these limits, alone in a team of its own; key and team are called by the name."""
    return GatewayKey(id=name, team=name, entry={"limits": list(rows)} if rows else {})


def limits_policy(
    keys: Iterable[GatewayKey], *, shared: Mapping[str, Sequence[Row]] | None = None, **sections: object
) -> str:
    """Return a policy with these keys; `shared` are the limits of teams, by team."""
    listed = list(keys)
    teams = [
        {"id": team, "limits": list(rows)}
        for team in dict.fromkeys(key.team for key in listed)
        for rows in [(shared or {}).get(team, ())]
    ]
    return policy_text(*listed, **{"teams": teams, **sections})


@dataclass(frozen=True, slots=True)
class Decision:
    """One answer of a barrage: its status (`LOST`: the connection broke), and when it was asked for and had.

    Both in seconds of the monotonic clock.
    """

    status: int
    sent_at: float
    had_at: float


class Door(Protocol):
    """Whatever takes callers: a gateway, or several that stand for one."""

    def connect(self) -> RawClient:
        """Open a connection."""


class Barrage:
    """Requests at a steady pace, each on a connection of its own so that all workers get some."""

    def __init__(self, gateway: Door, request: bytes, *, per_second: float, seconds: float) -> None:
        """Begin, in threads of its own."""
        self._gateway = gateway
        self._request = request
        self._pool = ThreadPoolExecutor(_CALLERS)
        began = time.monotonic()
        moments = [began + number / per_second for number in range(int(per_second * seconds))]
        self._futures = [self._pool.submit(self._ask_at, moment) for moment in moments]

    def _ask_at(self, moment: float) -> Decision:
        time.sleep(max(0.0, moment - time.monotonic()))  # the pace itself: nothing is waited for
        sent_at = time.monotonic()
        try:
            with self._gateway.connect() as client:
                status = client.ask(self._request).status
        except (Truncated, OSError):
            status = LOST
        return Decision(status, sent_at, time.monotonic())

    def decisions(self) -> list[Decision]:
        """Wait for the end; return what was decided, in the order of the asking."""
        with self._pool:
            return [future.result() for future in self._futures]


_CALLERS: Final = 8


def counted(decisions: Sequence[Decision]) -> Counter[int]:
    """Return how many there were of each status."""
    return Counter(decision.status for decision in decisions)


def assert_exact(decisions: Sequence[Decision], *, rate: float, burst: int, granted: int) -> None:
    """Check granted = rate x t + burst, give or take one.

    The decisions fell somewhere between asking and answer, so t has an upper and a lower bound.
    """
    first, last = min(decisions, key=lambda it: it.sent_at), max(decisions, key=lambda it: it.sent_at)
    longest = max(decision.had_at for decision in decisions) - first.sent_at
    shortest = last.sent_at - first.had_at
    assert rate * shortest + burst - 1 <= granted <= rate * longest + burst + 1, (granted, shortest, longest)


# -- fields -----------------------------------------------------------------------------------------------------------


def listed(response: Response, name: str) -> dict[str, dict[str, Any]]:
    """Return a structured field's items, by their names, with their parameters; empty without the field."""
    values = response.head.values(name.encode())
    assert len(values) <= 1, values
    items: Any = http_sf.parse(values[0], tltype="list") if values else []
    found = {str(item): dict(parameters) for item, parameters in items}
    assert len(found) == len(items), f"a name stands twice in {values!r}"
    assert all(isinstance(item, str) for item, _ in items)
    return found


def told(response: Response) -> dict[str, dict[str, Any]]:
    """Check RateLimit against RateLimit-Policy as the draft and the contract have them; return RateLimit's items."""
    limits, policies = listed(response, "ratelimit"), listed(response, "ratelimit-policy")
    assert limits.keys() <= policies.keys()
    assert bool(limits) == bool(policies)
    for parameters in policies.values():
        at_once = parameters.get("qu") == "concurrent-requests"
        assert parameters.keys() - {"qu"} == ({"q"} if at_once else {"q", "w"})
        assert all(type(parameters[name]) is int for name in parameters.keys() - {"qu"})
    for parameters in limits.values():
        assert {"r"} <= parameters.keys() <= {"r", "t"}
        assert all(type(value) is int and value >= 0 for value in parameters.values())
    return limits


def left(response: Response, name: str) -> int:
    """Return what is left of one limit, as an answer tells it."""
    return int(told(response)[name]["r"])
