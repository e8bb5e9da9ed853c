"""What happens in the scene: every kind of request, by keys with limits and budgets, before an emulator of fal."""

from __future__ import annotations

import itertools
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from tests.harness.messages import proxy_request
from tests.harness.policy import GatewayKey
from tests.harness.waiting import until
from tests.money.market import DOLLAR, FLUX, PRICES, UNPRICED, WORKFLOW, budget, market_policy, request_id_of, run_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.harness.client import Response
    from tests.money.market import Market

CALLERS: Final = 6
STRANGER: Final = "shop/stranger"
INITIATE: Final = "https://rest.fal.ai/storage/upload/initiate"

WEB: Final = GatewayKey(
    id="web-prod",
    team="design",
    entry={
        "limits": [
            {"name": "shy", "unit": "requests", "class": "paid", "quota": 3, "window": 3600, "shadow": True},
            {"name": "submits", "unit": "requests", "class": "paid", "quota": 1000, "window": 60},
        ]
    },
)
BATCH: Final = GatewayKey(
    id="batch", team="research", entry={"budgets": [{"usd": "3", "period": "month", "warn_at": [0.5]}]}
)
INTERN: Final = GatewayKey(
    id="intern",
    team="research",
    entry={
        "budgets": [budget("0.06", "day")],
        "limits": [{"name": "polls", "unit": "requests", "class": "free", "quota": 2, "window": 3600}],
        "allowed_endpoints": ["fal-ai/flux/**", "shop/**"],
    },
)
LAB: Final = GatewayKey(id="lab", team="lab")
KEYS: Final = (WEB, BATCH, INTERN, LAB)
TEAMS: Final = {"design": [budget("250", "week")], "research": [budget("10")]}


def policy(*, dollar_usd: str = "1") -> str:
    """Return the policy of the scene."""
    prices = {**PRICES, DOLLAR: {"unit": "film", "usd": dollar_usd}}
    return market_policy(KEYS, teams=TEAMS, prices=prices, clients={"allow_unauthorized_requests": False})


def everything(market: Market) -> None:
    """Let everything happen that can happen to a request."""
    for act in (buy, queue, stream, upload, be_refused, spend_a_budget, meet_faults, leave, meet_limits):
        act(market)


def a_little(market: Market, *, paid: bool = True) -> None:
    """Buy a little, and let fal fail once, so that there is something to see at the end of the range."""
    if paid:
        answered(market.ask(WEB), 200)
    answered(market.ask(WEB, emulate="status=503,units=0"), 503)
    market.ask(GatewayKey(id="nobody"))
    ask(market, WEB, "https://queue.fal.run/fal-ai/flux/requests/none/status", method="GET")


def bustle(market: Market, seconds: float) -> None:
    """Keep several callers busy, as on a usual day: most runs go well, a few do not."""
    ended = time.monotonic() + seconds

    def call(number: int) -> None:
        turns = itertools.count(number)
        while time.monotonic() < ended:
            turn = next(turns)
            delay = 20 + 37 * turn % 400
            key = (WEB, WEB, LAB, INTERN, WEB)[turn % 5]
            endpoint = WORKFLOW if turn % 25 == 1 else FLUX
            fault = {7: ",status=500", 13: ",status=429", 29: ",close=whole"}.get(turn % 31, "")
            market.ask(key, endpoint, emulate=f"delay={delay},units={1 + turn % 3 / 4}{fault}")

    with ThreadPoolExecutor(CALLERS) as callers:
        list(callers.map(call, range(0, 5 * CALLERS, 5)))


def buy(market: Market) -> None:
    """Runs, of several endpoints, with units and without."""
    for units in ("1", "2.5", "0.333333"):
        answered(market.ask(WEB, emulate=f"units={units}"), 200)
        answered(market.ask(BATCH, WORKFLOW, emulate=f"units={units}"), 200)
    answered(market.ask(WEB, emulate="units=none,billed=4"), 200)
    answered(market.ask(LAB, UNPRICED), 200)
    answered(market.ask(LAB, STRANGER), 200)


def queue(market: Market) -> None:
    """Queue jobs: one fetched, one cancelled, one polled."""
    job = request_id_of(answered(market.submit(WEB, emulate="queued=0,running=0,units=3"), 200))
    until(lambda: market.job(WEB, job).status == 200, "the job's result")
    waiting = request_id_of(answered(market.submit(WEB, emulate="queued=60000"), 200))
    answered(market.job(WEB, waiting, step="/status"), 202, 200)
    answered(market.job(WEB, waiting, step="/cancel", method="PUT"), 202)


def stream(market: Market) -> None:
    """An event stream."""
    answered(ask(market, WEB, f"https://fal.run/{FLUX}/stream", emulate="events=3,pace=20"), 200)


def upload(market: Market) -> None:
    """The beginning of an upload, and content of some size."""
    body = b'{"content_type":"text/plain","file_name":"a.txt"}'
    answered(ask(market, WEB, INITIATE, body=body), 200)
    answered(market.ask(WEB, body=b'"' + b"x" * 200_000 + b'"'), 200)


def be_refused(market: Market) -> None:
    """Every refusal that a caller can bring about by itself."""
    stranger = GatewayKey(id="stranger")
    answered(market.ask(stranger), 401)
    with market.connect() as client:
        answered(client.ask(proxy_request(key=None)), 401)
    answered(ask(market, WEB, None), 400)
    answered(ask(market, WEB, "http://fal.run/fal-ai/flux/dev"), 412)
    answered(ask(market, WEB, "https://example.com/x"), 412)
    answered(ask(market, WEB, f"https://fal.run/{FLUX}", method="TRACE"), 405)
    answered(ask(market, WEB, f"https://fal.run/{FLUX}", content_type="text/html"), 415)
    answered(ask(market, WEB, f"https://fal.run/{FLUX}", body=b"x" * 1_000_001), 413)
    answered(market.ask(INTERN, WORKFLOW), 403)
    answered(market.ask(INTERN, UNPRICED), 403)
    answered(ask(market, WEB, f"https://fal.run/{FLUX}", path="/elsewhere"), 404)


def spend_a_budget(market: Market) -> None:
    """Run into a budget, and past a share of one that warns."""
    asked: Sequence[Response] = [market.ask(INTERN) for _ in range(4)]
    assert [response.status for response in asked][-1] == 402, asked
    answered(market.ask(BATCH, WORKFLOW), 200)


def meet_limits(market: Market) -> None:
    """Run into a quota."""
    url = "https://queue.fal.run/fal-ai/flux/requests/none/status"
    asked = [ask(market, INTERN, url, method="GET").status for _ in range(3)]
    assert asked[-1] == 429, asked


def meet_faults(market: Market) -> None:
    """Every way in which fal fails or refuses."""
    for emulate in ("status=429", "status=403", "status=401", "status=402", "status=422", "status=500", "close=whole"):
        assert market.ask(WEB, emulate=emulate).status >= 400
    assert market.ask(BATCH, WORKFLOW, emulate="close=head").status == 500


def leave(market: Market) -> None:
    """A caller that leaves while its run is under way, which fal finishes and bills."""
    begun = len(market.books.entries())
    with market.connect() as client:
        client.send(run_of(WEB, emulate="delay=1500,units=2"))
        until(lambda: len(market.books.entries()) > begun, "the run in the ledger")
    market.gateway.wait_for_event("exchange", lambda event: event["outcome"] == "client_gone")


def reload_well_and_badly(market: Market) -> None:
    """Put another policy in force, and then one that is refused."""
    market.reload(policy(dollar_usd="2"))
    market.gateway.policy_file.write_text("teams: 7\n", encoding="utf-8")
    until(lambda: market.gateway.metrics().value("policy_reload_errors_total") >= 1, "a refused policy")


def ask(market: Market, key: GatewayKey, target: str | None, *, emulate: str = "", **parts: object) -> Response:
    """Send one request on a connection of its own."""
    fields = (("x-fal-emulate", emulate),) if emulate else ()
    with market.connect() as client:
        return client.ask(proxy_request(target, key=key, fields=fields, **parts))  # type: ignore[arg-type]


def answered(response: Response, *statuses: int) -> Response:
    """Return an answer that has one of these statuses."""
    assert response.status in statuses, (response.status, response.body[:500])
    return response
