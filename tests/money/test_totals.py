"""Sums: the ledger, the metrics and fal's bill agree to the nano-dollar, whatever came in between.

The decision it carries: the bill is the emulator's, which knows what was executed and nothing of the gateway. A request
whose answer was lost has no request id of fal's in the ledger, so no bill can be brought to it (docs/reconcile.md):
there is such a row for each such line of the bill, and everything else is compared one by one.
"""

from __future__ import annotations

import random
from decimal import Decimal
from typing import TYPE_CHECKING, Final

import pytest

from gateway.ledger.entry import HELD
from tests.harness.waiting import until
from tests.harness.wire import Truncated
from tests.money.market import (
    FLUX,
    LEDGER_SECONDS,
    NS,
    PRICES,
    WORKFLOW,
    Market,
    bill_of,
    budget,
    buyer,
    market_policy,
    request_id_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness.emulator import Emulator
    from tests.harness.policy import GatewayKey

READY: Final = "queued=0,running=0"
ODD: Final = "shop/odd"
DEAR: Final = {**PRICES, ODD: {"unit": "token", "usd": "0.000123457"}}
ENDPOINTS: Final = (FLUX, WORKFLOW, ODD)
SEED: Final = 20_261_122
STEPS: Final = 120
LIVES: Final = {STEPS // 3: "restart", 2 * STEPS // 3: "kill"}


def test_usage_metrics_and_bill_agree(open_market: Callable[..., Market], fal: Emulator) -> None:
    """Where nothing is estimated: `usage` = the sum of `cost_usd_total` = fal's bill, to the nano-dollar.

    What is settled shows in `usage` within 15 s, and when the gateway has ended.
    """
    fal.reset()
    fal.settings(prices=DEAR)
    keys = [buyer("first", budget("1000000")), buyer("second", budget("1000000", "day")), buyer("third")]
    units = random.Random(SEED)  # noqa: S311 - a test's own
    with open_market(fal, market_policy(keys, prices=DEAR), workers=2) as market:
        for number in range(30):
            key, endpoint = keys[number % 3], ENDPOINTS[number % 2 + number % 3 // 2]
            asked = f"units={Decimal(units.randrange(1, 10**7)) / 10 ** units.randrange(0, 6)}"
            if number % 4:
                assert market.ask(key, endpoint, emulate=asked).status == 200
            else:
                job_id = request_id_of(market.submit(key, endpoint, emulate=f"{READY},{asked}"))
                assert market.job(key, job_id, endpoint=endpoint).status == 200
        total_ns = sum(bill_of(fal).values())
        until(lambda: market.books.spent_ns() == total_ns, "the bill in the ledger", timeout_seconds=LEDGER_SECONDS)
        assert sum(market.charged_ns(key) for key in keys) == total_ns
        market.gateway.close()
        told = market.usage("--by", "key,endpoint")
        assert Decimal(told["total_usd"]) * NS == total_ns
        assert sum(Decimal(row["cost_usd"]) for row in told["rows"]) * NS == total_ns
        assert {row["source"] for row in told["rows"]} == {"exact"}
        assert (told["held_usd"], told["held_requests"]) == ("0", 0)


class Shopper:
    """Buys at random, and remembers the jobs that may still be asked for."""

    def __init__(self, market: Market, keys: list[GatewayKey], chance: random.Random) -> None:
        self._market, self._keys, self._chance = market, keys, chance
        self._jobs: list[tuple[str, str]] = []

    def step(self) -> None:
        """Do one thing."""
        chance = self._chance
        what = chance.choice((self._run, self._run, self._submit, self._submit, self._fetch, self._fetch, self._cancel))
        what(chance.choice(self._keys), chance.choice(ENDPOINTS))

    def _units(self) -> str:
        chance = self._chance
        units = f"units={Decimal(chance.randrange(1, 10**6)) / 10 ** chance.randrange(0, 5)}"
        billed = f"billed={Decimal(chance.randrange(1, 10**6)) / 1000}"
        return chance.choice((units, units, "units=none", f"{units},{billed}", f"units=none,{billed}"))

    def _run(self, key: GatewayKey, endpoint: str) -> None:
        broken = self._chance.choice(("",) * 8 + ("close=whole", "cut=10", "status=500", "status=422", "status=429"))
        said = "" if broken == "status=429" else self._units()  # what fal did not execute has no units
        try:
            self._market.ask(key, endpoint, emulate=",".join(filter(None, (said, broken))))
        except (Truncated, OSError):
            raise AssertionError("a paid JSON answer was cut") from None

    def _submit(self, key: GatewayKey, endpoint: str) -> None:
        times = self._chance.choice((READY, READY, "queued=0,running=300", "queued=300,running=0", "queued=60000"))
        broken = self._chance.choice(("",) * 6 + ("close=whole", "status=422,on=result", "status=500,on=result"))
        emulate = ",".join(filter(None, (times, self._units(), broken)))
        response = self._market.submit(key, endpoint, emulate=emulate)
        if response.status == 200:
            self._jobs.append((request_id_of(response), endpoint))

    def _fetch(self, key: GatewayKey, _endpoint: str) -> None:
        """Ask for a result 1 to 5 times, by any key of the team; some jobs are never asked for."""
        if self._jobs:
            job_id, endpoint = self._chance.choice(self._jobs)
            for _ in range(self._chance.choice((1, 1, 1, 5))):
                self._market.job(key, job_id, endpoint=endpoint, step=self._chance.choice(("", "", "/status")))

    def _cancel(self, key: GatewayKey, _endpoint: str) -> None:
        if self._jobs:
            job_id, endpoint = self._chance.choice(self._jobs)
            self._market.job(key, job_id, endpoint=endpoint, step="/cancel", method="PUT")


@pytest.mark.parametrize("seed", [SEED, SEED + 1])
def test_whatever_happens_the_reconciled_ledger_is_fals_bill(
    open_market: Callable[..., Market], fal: Emulator, seed: int
) -> None:
    """Runs, jobs, lost answers, cancels, restarts, a price changed in the midst, a discount: to the nano-dollar."""
    fal.reset()
    fal.settings(prices=DEAR, percent_discount="12.5")
    keys = [buyer(f"shopper-{number}", budget("1000000"), team="shoppers") for number in range(2)]
    chance = random.Random(seed)  # noqa: S311 - a test's own
    with open_market(fal, market_policy(keys, prices=DEAR), workers=2) as market:
        shopper = Shopper(market, keys, chance)
        for number in range(STEPS):
            if LIVES.get(number) == "restart":
                market.restart()
            elif LIVES.get(number) == "kill":
                market.kill()
                market.revive()
            elif number == STEPS // 2:
                market.reload(market_policy(keys, prices={**DEAR, FLUX: {"unit": "megapixel", "usd": "0.031"}}))
            shopper.step()
        market.gateway.close()
        said = market.command("reconcile", "--format", "json", FAL_ADMIN_KEY="admin:key")
        bill, rows = bill_of(fal), market.books.entries()
        known = {row.fal_request_id: row for row in rows if row.fal_request_id is not None}
        lost = [row for row in rows if row.fal_request_id is None and row.status != "released"]
        billed = {request_id: cost for request_id, cost in bill.items() if request_id in known}
        assert {request_id: known[request_id].cost_ns for request_id in billed} == billed
        assert {known[request_id].status for request_id in billed} == {"reconciled"}
        assert {row.status for row in lost} <= {"unknown"}
        assert len(said["only_fal"]) == len(bill) - len(billed) <= len(lost)
        unbilled = [row for row in known.values() if row.fal_request_id not in bill]
        assert [row for row in unbilled if row.cost_ns and row.status != HELD] == []
        known_ns = sum(row.cost_ns or 0 for row in known.values() if row.status != HELD)
        assert known_ns == sum(billed.values())
