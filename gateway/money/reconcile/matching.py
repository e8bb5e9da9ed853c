"""Purchases whose answer was lost, so that fal's request id is not known, and the bills that are theirs. Pure.

The decision: they belong together by credential, endpoint and time, one bill for one purchase, the earliest bill for
the purchase that can wait least; so it is the same pairs whoever looks, and another look finds no more. What is not
certain enough is left as it is, a purchase at its estimate and a bill without a purchase, rather than guessed:

* a purchase of a team that the policy does not know, and purchases of different credentials that the same bills suit:
  an admin key sees one account, and a team's own credential may be another account's. It counts only if other
  purchases of it were found on this bill;
* bills that a request under way suits as well: its answer will name its bill;
* more bills than purchases, unless they cost the same: some are of whoever uses the account past the gateway.

Two purchases of one credential may swap their bills, where both were lost at one endpoint within minutes.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.ledger.entry import HELD, Entry

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

OWN_CREDENTIAL: Final = ""
"""The gateway's own; the admin key is of the same account."""

EARLY_US: Final = 120 * 10**6
"""How much earlier than a purchase its bill may seem to be: clocks differ."""

LATE_US: Final = 900 * 10**6
"""How long after a run was given up fal may still have worked on it."""

LATE_JOB_US: Final = 86_400 * 10**6
"""How long after its submission a queue job may have been executed."""


class UnmatchedBill(NamedTuple):
    """A bill without a purchase: all its lines together; `at_us` is the earliest's moment."""

    at_us: int
    request_id: str
    endpoint: str
    cost_ns: int


class Match(NamedTuple):
    """A purchase and its bill's id."""

    row: Entry
    request_id: str


class _Claim(NamedTuple):
    """A purchase, and which of an endpoint's bills (`first` up to `end`) can be its own."""

    first: int
    end: int
    latest_us: int
    row: Entry


def match(
    rows: Iterable[Entry],
    unmatched: Iterable[UnmatchedBill],
    *,
    credentials: Mapping[str, str],
    proven: frozenset[str],
    now_us: int,
) -> list[Match]:
    """Return which lost purchases are which bills, in the order of the bills.

    `rows` have no request id: unknown ones, and held ones, which are under way. `credentials`: by team, as far
    as the policy names teams; `proven` are those that the bill is known to be of, beside the gateway's own.
    """
    bills: dict[str, list[UnmatchedBill]] = {}
    for bill in sorted(set(unmatched)):
        bills.setdefault(bill.endpoint, []).append(bill)
    claims: dict[str, list[_Claim]] = {}
    for row in sorted(set(rows)):
        claim = _claim(row, bills.get(row.endpoint, ()), now_us)
        if claim.first < claim.end:
            claims.setdefault(row.endpoint, []).append(claim)
    known = proven | {OWN_CREDENTIAL}
    found: list[Match] = []
    for endpoint, claimed in claims.items():
        for group in _groups(claimed):
            theirs = bills[endpoint][group[0].first : max(claim.end for claim in group)]
            if _is_certain(group, theirs, credentials, known):
                found += _paired(group, bills[endpoint])
    return found


def _claim(row: Entry, bills: Sequence[UnmatchedBill], now_us: int) -> _Claim:
    late_us = row.admitted_at_us + LATE_JOB_US if row.kind == "submit" else row.changed_at_us + LATE_US
    latest_us = now_us if row.status == HELD else late_us
    first = bisect_left(bills, row.admitted_at_us - EARLY_US, key=_moment)
    return _Claim(first, bisect_right(bills, latest_us, key=_moment), latest_us, row)


def _moment(bill: UnmatchedBill) -> int:
    return bill.at_us


def _groups(claims: list[_Claim]) -> Iterator[list[_Claim]]:
    """Yield claims that have bills in common, directly or through others."""
    group: list[_Claim] = []
    end = 0
    for claim in sorted(claims):
        if group and claim.first >= end:
            yield group
            group, end = [], 0
        group.append(claim)
        end = max(end, claim.end)
    if group:
        yield group


def _is_certain(
    group: Sequence[_Claim], bills: Sequence[UnmatchedBill], credentials: Mapping[str, str], known: frozenset[str]
) -> bool:
    of = {credentials.get(claim.row.team) for claim in group}
    is_one = len(of) == 1 and of <= known
    is_over = all(claim.row.status != HELD for claim in group)
    are_enough = len(bills) <= len(group) or len({bill.cost_ns for bill in bills}) == 1
    return is_one and is_over and are_enough


def _paired(group: Sequence[_Claim], bills: Sequence[UnmatchedBill]) -> Iterator[Match]:
    """Yield as many pairs as there can be: each bill goes to the purchase that can wait least for another one."""
    coming = sorted(group, reverse=True)
    waiting: list[tuple[int, int, str, Entry]] = []
    for place in range(coming[-1].first, max(claim.end for claim in group)):
        while coming and coming[-1].first <= place:
            claim = coming.pop()
            heappush(waiting, (claim.latest_us, claim.row.admitted_at_us, claim.row.id, claim.row))
        while waiting and waiting[0][0] < bills[place].at_us:
            heappop(waiting)
        if waiting:
            yield Match(heappop(waiting)[3], bills[place].request_id)
