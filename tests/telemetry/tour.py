"""Traffic of every kind through one gateway, and what the metrics must say of it afterwards.

The decision it carries: what is expected is written down as each request is made, by whoever made it, and never read
from the gateway. So a page of metrics is compared with what was done, series by series, and nothing may be beside it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from tests.harness.messages import proxy_request
from tests.harness.policy import GatewayKey
from tests.harness.waiting import until
from tests.money.market import FLUX, UNPRICED, Market, budget, buyer, market_policy, request_id_of, run_of

if TYPE_CHECKING:
    from tests.harness.client import Response

Labels = tuple[str, ...]

NOBODY: Final = ("unknown", "unknown")
FLUX_NS: Final = 25_000_000
"""Nano-dollars of a megapixel."""

WEB: Final = GatewayKey(id="web", team="design")
POOR: Final = buyer("poor", budget("0.01", "day"), team="design")
SLOW: Final = GatewayKey(
    id="slow", team="legal", entry={"limits": [{"name": "few", "unit": "requests", "quota": 1, "window": "3600s"}]}
)
WATCHED: Final = GatewayKey(
    id="watched",
    team="legal",
    entry={"limits": [{"name": "few", "unit": "requests", "quota": 1, "window": "3600s", "shadow": True}]},
)
NARROW: Final = GatewayKey(
    id="narrow", team="narrow", entry={"allowed_endpoints": ["shop/dollar"], "max_body_bytes": 1000}
)
LEAVER: Final = GatewayKey(id="leaver", team="leaver")
BULKY: Final = GatewayKey(id="bulky", team="bulky")
REFUSED: Final = GatewayKey(id="refused", team="refused")
KEYS: Final = (WEB, POOR, SLOW, WATCHED, NARROW, LEAVER, BULKY, REFUSED)
POLICY: Final = market_policy(KEYS)


class Tour:
    """Drives a market. `counted` holds for each family, by its labels, what was done."""

    def __init__(self, market: Market) -> None:
        self.market = market
        self.counted: dict[str, Counter[Labels]] = {}
        self.origin_answers: Counter[str] = Counter()  # by class

    def count(self, family: str, *labels: str, by: int = 1) -> None:
        """Write down what must show."""
        self.counted.setdefault(family, Counter())[labels] += by

    def ask(  # noqa: PLR0913 (the labels)
        self,
        request: bytes,
        status: int,
        *,
        key: GatewayKey | None = None,
        endpoint: str = "none",
        billing: str = "none",
        relayed: bool = True,
    ) -> Response:
        """Make a request that must end with a status, and write it down; `relayed`: it is the origin's answer."""
        with self.market.connect() as client:
            response = client.ask(request)
        assert response.status == status, (request, response)
        self.told(status, key=key, endpoint=endpoint, billing=billing)
        self.origin_answers[billing] += relayed
        return response

    def told(self, status: int, *, key: GatewayKey | None, endpoint: str, billing: str) -> None:
        """Write down a request that ended."""
        who = (key.team, key.id) if key is not None else NOBODY
        self.count("requests_total", *who, endpoint, billing, str(status))

    def refuse(  # noqa: PLR0913 (the labels)
        self,
        request: bytes,
        status: int,
        error_type: str,
        *,
        key: GatewayKey | None = None,
        endpoint: str = "none",
        billing: str = "none",
    ) -> None:
        """Make a request that the gateway must refuse, and write it down."""
        response = self.ask(request, status, key=key, endpoint=endpoint, billing=billing, relayed=False)
        assert response.json()["error_type"] == error_type
        who = (key.team, key.id) if key is not None else NOBODY
        self.count("refusals_total", *who, error_type)

    def spend(self, key: GatewayKey, source: str, cost_ns: int, *, units: int | None = None) -> None:
        """Write down what a purchase of flux has cost; microunits where it had any."""
        self.count("cost_usd_total", key.team, key.id, FLUX, source, by=cost_ns)
        if units is not None:
            self.count("billable_units_total", key.team, key.id, FLUX, "megapixel", by=units * 10**6)

    # -- kinds of traffic ---------------------------------------------------------------------------------------------

    def run_all(self) -> Tour:
        """Do everything once."""
        for part in (self.runs, self.jobs, self.others, self.refusals, self.refusals_of_fal, self.faults, self.leaving):
            part()
        return self

    def runs(self) -> None:
        """Runs with units, without, without a price, under shadow limits, and with content that is counted."""
        for _ in range(3):
            self.ask(run_of(WEB, emulate="units=2"), 200, key=WEB, endpoint=FLUX, billing="paid")
            self.spend(WEB, "exact", 2 * FLUX_NS, units=2)
        self.ask(run_of(WEB, emulate="units=none"), 200, key=WEB, endpoint=FLUX, billing="paid")
        self.spend(WEB, "estimated", FLUX_NS)  # as the policy's `typical_units` say
        self.ask(run_of(WEB, UNPRICED), 200, key=WEB, endpoint=UNPRICED, billing="paid")
        self.count("unpriced_requests_total", UNPRICED)
        self.count("billable_units_total", WEB.team, WEB.id, UNPRICED, "unknown", by=10**6)
        for _ in range(2):
            self.ask(run_of(WATCHED, emulate="units=0"), 200, key=WATCHED, endpoint=FLUX, billing="paid")
        self.count("shadow_refusals_total", WATCHED.team, WATCHED.id)
        for size in (1, 100_000):
            request = run_of(BULKY, emulate="units=0,size=5000", body=b'"' + b"x" * (size - 1) + b'"')
            answer = self.ask(request, 200, key=BULKY, endpoint=FLUX, billing="paid")
            self.count("request_bytes_total", BULKY.team, "paid", by=size + 1)
            self.count("response_bytes_total", BULKY.team, "paid", by=len(answer.body))

    def jobs(self) -> None:
        """A job that is asked about and fetched, twice; one that is cancelled; one that nobody knows."""
        submitted = self.market.submit(WEB, emulate="queued=0,running=0,units=4")
        self.told(200, key=WEB, endpoint=FLUX, billing="paid")
        self.origin_answers["paid"] += 1
        job_id = request_id_of(submitted)
        for step in ("/status", "", ""):
            assert self.market.job(WEB, job_id, step=step).status == 200
            self._polled(200)
        self.spend(WEB, "exact", 4 * FLUX_NS, units=4)
        waiting = request_id_of(self.market.submit(WEB, emulate="queued=60000,units=4"))
        self.told(200, key=WEB, endpoint=FLUX, billing="paid")
        self.origin_answers["paid"] += 1
        assert self.market.job(WEB, waiting, step="/cancel", method="PUT").status == 202
        self._polled(202)
        assert self.market.job(WEB, "00000000-0000-0000-0000-000000000000").status == 404
        self._polled(404, endpoint="fal-ai/flux")

    def _polled(self, status: int, *, endpoint: str = FLUX) -> None:
        self.told(status, key=WEB, endpoint=endpoint, billing="free")
        self.origin_answers["free"] += 1

    def others(self) -> None:
        """An event stream, an upload, a token, and a preflight."""
        stream = run_of(WEB, f"{FLUX}/stream", emulate="units=0,events=2,pace=1")
        self.ask(stream, 200, key=WEB, endpoint=FLUX, billing="paid")
        upload, tokens = "storage/upload/initiate", "tokens/"
        body = b'{"content_type":"image/png","file_name":"a.png"}'
        request = proxy_request(f"https://rest.fal.ai/{upload}?storage_type=fal-cdn-v3", key=WEB, body=body)
        self.ask(request, 200, key=WEB, endpoint=upload, billing="free")
        request = proxy_request(f"https://rest.fal.ai/{tokens}", key=WEB, body=b'{"allowed_apps":["flux"]}')
        self.ask(request, 200, key=WEB, endpoint=tokens, billing="free")
        self.ask(proxy_request(None, method="OPTIONS"), 204, relayed=False)

    def refusals(self) -> None:
        """Whatever the gateway says no to."""
        flux: dict[str, Any] = {"endpoint": FLUX, "billing": "paid"}
        self.refuse(proxy_request(method="PATCH", body=b"{}"), 405, "method_not_allowed")
        self.refuse(proxy_request(), 401, "credential_missing")
        self.refuse(proxy_request(key="wrong"), 401, "credential_invalid")
        self.refuse(proxy_request(None, key=WEB), 400, "target_missing", key=WEB)
        self.refuse(proxy_request("https://fal.run@evil.test/x", key=WEB), 412, "target_invalid", key=WEB)
        self.refuse(proxy_request("https://evil.test/x", key=WEB), 412, "target_not_allowed", key=WEB)
        self.refuse(run_of(NARROW), 403, "endpoint_not_allowed", key=NARROW, **flux)
        self.refuse(run_of(WEB, content_type="text/plain"), 415, "unsupported_media_type", key=WEB, **flux)
        large = run_of(NARROW, "shop/dollar", body=b'"' + b"x" * 1000 + b'"')
        self.refuse(large, 413, "content_too_large", key=NARROW, endpoint="shop/dollar", billing="paid")
        self.refuse(run_of(POOR), 402, "budget_exhausted", key=POOR, **flux)
        self.refuse(run_of(POOR, UNPRICED), 403, "endpoint_unpriced", key=POOR, endpoint=UNPRICED, billing="paid")
        self.ask(run_of(SLOW, emulate="units=0"), 200, key=SLOW, **flux)
        self.refuse(run_of(SLOW), 429, "quota_exceeded", key=SLOW, **flux)
        self.refuse(b"GET /api/fal/proxy HTTP/1.1\r\nno field\r\n\r\n", 400, "request_invalid")

    def refusals_of_fal(self) -> None:
        """What fal says no to: passed on, but for a 401, and counted apart from ours."""
        request = run_of(REFUSED, emulate="status=401,units=none")
        self.ask(request, 500, key=REFUSED, endpoint=FLUX, billing="paid")
        self.count("upstream_refusals_total", "credential_rejected")
        self.count("upstream_failures_total", "upstream_unauthorized")
        for status, reason in ((429, "rate_limited"), (403, "account_locked")):
            request = run_of(REFUSED, emulate=f"status={status},units=none")
            self.ask(request, status, key=REFUSED, endpoint=FLUX, billing="paid")
            self.count("upstream_refusals_total", reason)
        request = run_of(REFUSED, emulate="status=402,units=none")
        self.ask(request, 402, key=REFUSED, endpoint=FLUX, billing="paid")
        self.count("upstream_refusals_total", "other")
        request = run_of(REFUSED, emulate="status=403,gzip,units=none", fields=(("Accept-Encoding", "gzip"),))
        self.ask(request, 403, key=REFUSED, endpoint=FLUX, billing="paid")
        self.count("upstream_refusals_total", "account_locked")
        polled = proxy_request("https://queue.fal.run/fal-ai/flux/requests/5f0f/status", key=REFUSED, method="GET")
        locked = polled.replace(b"\r\n\r\n", b"\r\nx-fal-emulate: status=403\r\n\r\n")
        self.ask(locked, 403, key=REFUSED, endpoint="fal-ai/flux", billing="free")
        self.count("upstream_refusals_total", "account_locked")
        self.ask(run_of(REFUSED, emulate="status=422"), 422, key=REFUSED, endpoint=FLUX, billing="paid")

    def faults(self) -> None:
        """What is the origin's fault; executed and lost, so its estimate is charged."""
        request = run_of(WEB, emulate="close=whole")
        self.ask(request, 500, key=WEB, endpoint=FLUX, billing="paid", relayed=False)
        self.count("upstream_failures_total", "origin_failed")
        self.spend(WEB, "unknown", FLUX_NS)

    def leaving(self) -> None:
        """A caller that leaves while its run goes on: paid for, and of no use to anybody."""
        gateway = self.market.gateway
        with self.market.connect() as client:
            client.send(run_of(LEAVER, emulate="units=3,delay=1500"))
            until(lambda: gateway.metrics().value("inflight_requests") == 1, "the run under way")
        until(lambda: gateway.metrics().value("clients_gone_total") == 1, "the end of the run that was left")
        self.told(499, key=LEAVER, endpoint=FLUX, billing="paid")
        self.origin_answers["paid"] += 1
        self.count("clients_gone_total")
        self.spend(LEAVER, "exact", 3 * FLUX_NS, units=3)
        self.count("abandoned_cost_usd_total", LEAVER.team, LEAVER.id, by=3 * FLUX_NS)
