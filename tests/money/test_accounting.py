"""What becomes of money: every way in which a request can end, in the journal, the purse and the metrics."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.fal.calls import Call
from gateway.fal.units import units_of
from gateway.http.problem import Problem
from gateway.ledger.entry import Entry, from_line
from gateway.money.accounting import Accounting
from gateway.money.purchase import Charge, Purchase, RequestResult
from gateway.policy.budget import Budget, period_start
from gateway.policy.credential import Principal
from gateway.policy.price import LARGEST_PICODOLLARS, MOST_COST_NS, Estimates, Price
from gateway.policy.quota import NO_LIMITS
from gateway.proxy.answer import cost_lines
from gateway.state.interface import Acquire
from gateway.state.memory.jobs import JobTable, LocalJobs
from gateway.state.memory.store import LocalStore, Quotas

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NOW: Final = 1_795_000_000.0
DAY: Final = Budget("key/web", "day", 10**9)
PRICED, UNPRICED = "fal-ai/flux/dev", "acme/new"
PRICE: Final = Price("image", 10**11)  # ten cents
ESTIMATE: Final = 10**8
RUN: Final = Call("run", "paid", PRICED, None, "run")
SUBMIT: Final = Call("queue", "paid", PRICED, None, "submit")


def call_about(job: str, action: Any) -> Call:  # noqa: ANN401 (a literal of `Call`)
    """Return a call about a job, as its URL says."""
    return Call("queue", "free", "fal-ai/flux", job, action)


class Kept:
    """An account whose counts are kept, behind its labels."""

    def __init__(self, counted: list[tuple[object, ...]], labels: tuple[str | None, ...]) -> None:
        self._counted = counted
        self._labels = labels

    def count(self, units: Decimal | None, cost_ns: int | None, source: str) -> None:
        """Take what is counted (`Account`)."""
        text = str(units) if units is not None else None
        self._counted.append((*self._labels, text, cost_ns, source))


class Scene:
    """An accounting with all that it works with."""

    def __init__(self, *, refuses_unpriced: bool = True) -> None:
        self.quotas = Quotas(places=8, address_places=8)
        self.quotas.purses.fill(DAY.store_name, period_start("day", NOW), spent_ns=0, jobs_ns=0)
        self.store = LocalStore(self.quotas, wall=lambda: NOW)
        self.jobs = JobTable(sets=1)
        self.lines: list[bytes] = []
        self.counted: list[tuple[object, ...]] = []
        self.principal = Principal("web", "design", None, None, None, budgets=(DAY,))
        self._refuses_unpriced = refuses_unpriced
        self.accounting = self._accounting({PRICED: PRICE}, DAY)

    def _accounting(self, prices: dict[str, Price], budget: Budget) -> Accounting:
        return Accounting(
            prices=prices,
            budgets_of=lambda owner: (budget,) if owner == "key/web" else (),
            refuses_unpriced=self._refuses_unpriced,
            store=self.store,
            jobs=LocalJobs(self.jobs),
            journal=self,
            takings=self,
            estimates=Estimates(),
            wall=lambda: NOW,
        )

    def price(self, price: Price) -> None:
        """Set another price, and a budget that has room for it."""
        budget = Budget(DAY.owner, DAY.period, 2 * MOST_COST_NS)
        self.principal = Principal("web", "design", None, None, None, budgets=(budget,))
        self.accounting = self._accounting({PRICED: price}, budget)

    is_full = False
    is_disk_full = False
    optional = 0  # lines that may be dropped
    written_down = 0

    def is_full_for(self, key: str) -> bool:  # noqa: ARG002 (for everybody)
        """Say whether there is no room (`Journal`)."""
        return self.is_full

    def flush(self) -> bool:
        """Note how much is written down (`Journal`)."""
        self.written_down = len(self.lines)
        return True

    def append(self, line: bytes, refused: Callable[[], None] | None = None, optional: bool = False) -> None:  # noqa: FBT001, FBT002
        """Take a line (`Journal`)."""
        self.lines.append(line)
        self.optional += optional
        if self.is_disk_full and refused is not None:
            refused()

    def account(self, team: str, key: str, endpoint: str, unit: str | None) -> Kept:
        """Return where it is counted (`Takings`)."""
        return Kept(self.counted, (team, key, endpoint, unit))

    def buy(self, call: Call = RUN, *, number: int = 1, principal: Principal | None = None) -> Purchase:
        """Admit a purchase and write it down."""
        purchase = self.accounting.open(principal or self.principal, call, f"{number:032x}")
        assert isinstance(purchase, Purchase)
        if purchase.hold is not None:
            verdict = self.store.ask(Acquire(purchase.id, NO_LIMITS, "", purchase.hold), lambda _verdict: None)
            assert verdict is not None
            assert verdict.granted
        self.accounting.record(purchase, lambda: pytest.fail("it could not be written"))
        return purchase

    def answer(self, call: Call, status: int, units: Decimal | None) -> Entry | None:
        """Tell the accounting of an answer about a job; return what the ledger is told at once."""
        told: list[Charge] = []
        self.accounting.job_answered(call, status, units, told.append)
        return self.written(told[0] if told else None)

    def close(self, purchase: Purchase, what: RequestResult) -> Entry | None:
        """Bring a purchase to its end; return what the ledger is told."""
        return self.written(self.accounting.close(purchase, what))

    def written(self, charge: Charge | None) -> Entry | None:
        """Return the line that goes with what a purchase came to."""
        if charge is None:
            return None
        assert (self.last.cost_ns, self.last.source) == (charge.cost_ns, charge.source)
        return self.last

    @property
    def sums(self) -> tuple[int, int]:
        """Spent and held of the budget."""
        self.store.write()
        purse = self.quotas.purses.purse(DAY.store_name, period_start("day", NOW))
        return purse.spent_ns, purse.held_ns

    @property
    def last(self) -> Entry:
        """The last line."""
        entry = from_line(self.lines[-1])
        assert entry is not None
        return entry

    def end(self) -> None:
        """Give the memory back."""
        self.quotas.close()
        self.jobs.close()


@pytest.fixture
def scene() -> Iterator[Scene]:
    """Return a scene."""
    made = Scene()
    yield made
    made.end()


def fate(*, sent: bool = True, status: int = 200, units: str | None = None, answered: bool = True) -> RequestResult:
    """Return what became of a request."""
    return RequestResult(
        was_sent=sent,
        status=status,
        units=Decimal(units) if units is not None else None,
        is_answered=answered,
        fal_id="fal-1",
    )


@pytest.mark.parametrize(
    ("what", "status", "source", "cost"),
    [
        (fate(sent=False, status=0, answered=False), "released", "exact", 0),  # refused, unreachable, never whole
        (fate(units="2.5"), "settled", "exact", 250_000_000),
        (fate(units="0"), "settled", "exact", 0),
        (fate(status=422, units="1"), "settled", "exact", ESTIMATE),  # the header decides, not the status
        (fate(status=500, units="0"), "settled", "exact", 0),
        (fate(status=403), "released", "exact", 0),
        (fate(status=429), "released", "exact", 0),
        (fate(status=503), "released", "exact", 0),
        (fate(status=307), "released", "exact", 0),
        (fate(sent=False, status=413, answered=False), "released", "exact", 0),  # an early refusal
        (fate(), "settled", "estimated", ESTIMATE),  # a stream that tells no units
        (fate(status=0, answered=False), "unknown", "unknown", ESTIMATE),  # sent, and lost
        (fate(answered=False), "unknown", "unknown", ESTIMATE),  # broke off behind a head without units
        (fate(answered=False, units="3"), "settled", "exact", 3 * ESTIMATE),
    ],
)
def test_each_fate_has_its_row(scene: Scene, what: RequestResult, status: str, source: str, cost: int) -> None:
    """The ledger, the budget and the metrics are told the same, once, and nothing stays held."""
    purchase = scene.buy()
    assert (scene.last.status, scene.sums) == ("held", (0, ESTIMATE))
    entry = scene.close(purchase, what)
    assert entry is not None
    assert (entry.status, entry.source, entry.cost_ns) == (status, source, cost)
    assert (entry.team, entry.key, entry.endpoint, entry.unit_price) == ("design", "web", PRICED, "0.1")
    assert scene.sums == (cost, 0)
    assert scene.counted == [("design", "web", PRICED, "image", entry.units, cost, source)]
    assert scene.close(purchase, what) is None
    assert (len(scene.lines), scene.sums) == (2, (cost, 0))


def test_a_hold_is_on_its_way_before_the_request(scene: Scene) -> None:
    """The journal has the whole row before anything is sent."""
    scene.buy()
    assert scene.last._asdict() == {
        "id": f"{1:032x}",
        "status": "held",
        "team": "design",
        "key": "web",
        "endpoint": PRICED,
        "kind": "run",
        "fal_request_id": None,
        "admitted_at_us": int(NOW * 10**6),
        "changed_at_us": int(NOW * 10**6),
        "units": None,
        "unit": "image",
        "unit_price": "0.1",
        "estimate_ns": ESTIMATE,
        "cost_ns": None,
        "source": "estimated",
    }


def test_what_never_got_its_hold_leaves_nothing(scene: Scene) -> None:
    """A refused call is no purchase."""
    purchase = scene.accounting.open(scene.principal, RUN, "a" * 32)
    assert isinstance(purchase, Purchase)
    assert scene.close(purchase, fate(sent=False, status=0)) is None
    assert (scene.lines, scene.counted) == ([], [])


def test_a_job_is_settled_once_to_its_submitter(scene: Scene) -> None:
    """Held under fal's id, by the first result that carries units, whoever fetches it, however often."""
    purchase = scene.buy(SUBMIT)
    scene.accounting.bind(purchase, "job", lambda: None)
    assert scene.written_down == len(scene.lines)  # before the caller is told the id, or a death could lose it
    assert (scene.last.status, scene.last.fal_request_id, scene.sums) == ("held", "job", (0, ESTIMATE))
    assert scene.close(purchase, fate()) is None, "a job's purchase does not end with its submit"
    assert scene.answer(call_about("job", "status"), 200, None) is None
    assert scene.answer(call_about("job", "result"), 400, None) is None, "in progress changes nothing"
    entry = scene.answer(call_about("job", "result"), 200, Decimal("1.5"))
    assert entry is not None
    assert (entry.id, entry.status, entry.cost_ns, entry.key) == (purchase.id, "settled", 150_000_000, "web")
    for _ in range(3):
        assert scene.answer(call_about("job", "result"), 200, Decimal("1.5")) is None
    assert (scene.sums, len(scene.counted)) == ((150_000_000, 0), 1)


@pytest.mark.parametrize(
    ("action", "status", "units"), [("cancel", 202, None), ("result", 422, None), ("result", 200, Decimal(0))]
)
def test_a_job_that_cost_nothing_is_released(scene: Scene, action: str, status: int, units: Decimal | None) -> None:
    """Cancelled, failed over its input, or without units; a later result with units still settles."""
    scene.accounting.bind(scene.buy(SUBMIT), "job", lambda: None)
    released = scene.answer(call_about("job", action), status, units)
    assert released is not None
    assert (released.status, released.cost_ns, scene.sums) == ("released", 0, (0, 0))
    settled = scene.answer(call_about("job", "result"), 200, Decimal(2))
    assert settled is not None
    assert (settled.status, scene.sums) == ("settled", (2 * ESTIMATE, 0))


def test_a_cancel_that_came_too_late_changes_nothing(scene: Scene) -> None:
    """400 ALREADY_COMPLETED, 404, and jobs that did not come through here."""
    scene.accounting.bind(scene.buy(SUBMIT), "job", lambda: None)
    assert scene.answer(call_about("job", "cancel"), 400, None) is None
    assert scene.answer(call_about("elsewhere", "result"), 200, Decimal(1)) is None
    assert scene.sums == (0, ESTIMATE)


def test_a_submit_whose_answer_named_no_job_is_unknown(scene: Scene) -> None:
    """There may be a job, which nobody can find again."""
    entry = scene.close(scene.buy(SUBMIT), fate())
    assert entry is not None
    assert (entry.status, entry.source, scene.sums) == ("unknown", "unknown", (ESTIMATE, 0))


def test_an_endpoint_without_a_price_is_refused_under_a_budget(scene: Scene) -> None:
    """403 `endpoint_unpriced`, unless the policy allows it; without a budget it passes, and is counted as unknown."""
    call = Call("run", "paid", UNPRICED, None, "run")
    problem = scene.accounting.open(scene.principal, call, "a" * 32)
    assert isinstance(problem, Problem)
    assert (problem.status, problem.error_type) == (403, "endpoint_unpriced")
    entry = scene.close(scene.buy(call, principal=Principal("web", "design", None, None, None)), fate(units="4"))
    assert entry is not None
    assert (entry.status, entry.source, entry.cost_ns, entry.units) == ("settled", "unknown", None, "4")


def test_unpriced_calls_may_be_allowed_under_a_budget() -> None:
    """`unpriced_endpoints: allow`: they hold nothing and cost nothing that is known."""
    scene = Scene(refuses_unpriced=False)
    entry = scene.close(scene.buy(Call("run", "paid", UNPRICED, None, "run")), fate(units="4"))
    assert entry is not None
    assert (entry.cost_ns, scene.sums) == (None, (0, 0))
    scene.end()


QUANTITIES: Final = st.from_regex(r"[+-]?[0-9]{0,25}\.?[0-9]{0,25}([eE][+-]?[0-9]{1,4})?", fullmatch=True) | st.text(
    max_size=45
)


@given(st.lists(QUANTITIES, min_size=1, max_size=2), st.integers(0, LARGEST_PICODOLLARS), st.booleans())
def test_whatever_fal_names_is_a_row_that_the_ledger_takes(named: list[str], picodollars: int, is_job: bool) -> None:  # noqa: FBT001 (drawn)
    """Exact where quantity and cost are within their bounds, else unknown at the estimate; counted in the budget."""
    scene = Scene()
    scene.price(Price("image", picodollars, Decimal("0.000001")))
    units = units_of(", ".join(named))
    call = SUBMIT if is_job else RUN
    purchase = scene.buy(call)
    if is_job:
        scene.accounting.bind(purchase, "job", lambda: None)
        scene.accounting.job_answered(
            call_about("job", "result"), 200, units, lambda _charge: None, are_units_unreadable=units is None
        )
    else:
        told = RequestResult(
            was_sent=True, status=200, units=units, are_units_unreadable=units is None, is_answered=True, fal_id=None
        )
        scene.accounting.close(purchase, told)
    entry = scene.last
    cost = None if units is None else Price("image", picodollars).cost_ns(units)
    if cost is None or cost > MOST_COST_NS:
        assert (entry.status, entry.source, entry.cost_ns) == ("unknown", "unknown", purchase.estimate_ns)
    else:
        assert (entry.status in ("settled", "released"), entry.source, entry.cost_ns) == (True, "exact", cost)
    assert scene.sums == (entry.cost_ns, 0)
    scene.end()


def test_the_caller_is_told_a_cost_that_is_known() -> None:
    """Where units and price are known by the time the head goes out."""
    assert cost_lines(PRICE.picodollars, Decimal("2.5")) == (
        b"x-gateway-cost-usd: 0.25\r\n",
        b"x-gateway-cost-source: exact\r\n",
    )


def test_nothing_is_bought_that_cannot_be_written_down(scene: Scene) -> None:
    """While the journal takes no line, callers under a budget get 503; it costs the others nothing."""
    scene.is_full = True
    problem = scene.accounting.open(scene.principal, RUN, "a" * 32)
    assert isinstance(problem, Problem)
    assert (problem.status, problem.error_type) == (503, "state_unavailable")
    assert isinstance(scene.accounting.open(Principal("web", "design", None, None, None), RUN, "b" * 32), Purchase)
    scene.is_full = False
    assert isinstance(scene.accounting.open(scene.principal, RUN, "a" * 32), Purchase)


def test_what_the_disk_does_not_take_is_not_bought() -> None:
    """Under a budget a purchase is in the file before it is sent; where it is not, it is refused and released."""
    scene = Scene()
    scene.is_disk_full = True
    purchase = scene.accounting.open(scene.principal, RUN, "1" * 32)
    assert isinstance(purchase, Purchase)
    assert purchase.hold is not None
    assert scene.store.ask(Acquire(purchase.id, NO_LIMITS, "", purchase.hold), lambda _verdict: None) is not None
    refused: list[bool] = []
    scene.accounting.record(purchase, lambda: refused.append(True))
    assert refused
    unsent = RequestResult(was_sent=False, status=0, units=None, is_answered=False, fal_id=None)
    entry = scene.close(purchase, unsent)
    assert entry is not None
    assert entry.status == "released"
    assert scene.sums == (0, 0)
