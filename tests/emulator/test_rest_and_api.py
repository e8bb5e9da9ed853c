"""Rules of tokens, prices and bills."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.emulator.stand import FAL_KEY, Stand

BILLS = "/v1/models/billing-events"
PRICES = "/v1/models/pricing"


def api(fal: Stand, path: str, **more: Any) -> Any:  # noqa: ANN401 - JSON
    """Return a page of api.fal.ai."""
    answer = fal.ask("api.fal.ai", path, method="GET", **more)
    assert answer.status == 200, answer.body
    return answer.json()


def test_a_token_is_a_json_text(fal: Stand) -> None:
    """A token for a browser is one JSON text, a JWT that names its apps."""
    token = fal.ask("rest.fal.ai", "/tokens/", content={"allowed_apps": ["flux"], "token_expiration": 60}).json()
    assert isinstance(token, str)
    claims = token.split(".")[1]
    assert json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["allowed_apps"] == ["flux"]


@pytest.mark.parametrize("content", [{}, {"allowed_apps": "flux"}, {"allowed_apps": ["a"], "token_expiration": "soon"}])
def test_a_token_needs_its_apps(fal: Stand, content: object) -> None:
    """A wrong wish for a token is a 422."""
    assert fal.ask("rest.fal.ai", "/tokens/", content=content).status == 422


def test_prices_are_listed_by_id(fal: Stand) -> None:
    """Ids may be repeated or come with commas; one without a price is left out."""
    page = api(fal, f"{PRICES}?endpoint_id=fal-ai/flux/dev,fal-ai/flux/schnell&endpoint_id=no/price")
    assert [price["endpoint_id"] for price in page["prices"]] == ["fal-ai/flux/dev", "fal-ai/flux/schnell"]
    assert page["prices"][0] == {
        "endpoint_id": "fal-ai/flux/dev",
        "unit_price": 0.025,
        "unit": "megapixels",
        "currency": "USD",
    }
    assert (page["next_cursor"], page["has_more"]) == (None, False)


@pytest.mark.parametrize("ids", ["", ",".join(f"a/{number}" for number in range(51))])
def test_prices_need_1_to_50_ids(fal: Stand, ids: str) -> None:
    """No id, or more than 50, is an error."""
    assert fal.ask("api.fal.ai", f"{PRICES}?endpoint_id={ids}", method="GET").status == 400


def test_pages_follow_one_another(fal: Stand) -> None:
    """A cursor leads from page to page until there is no more."""
    fal.control("settings", {"prices": {f"a/{n}": {"unit": "images", "usd": "1"} for n in range(5)}, "page_size": 2})
    wanted = f"{PRICES}?endpoint_id=" + ",".join(f"a/{number}" for number in range(5))
    seen, cursor = [], "0"
    while cursor is not None:
        page = api(fal, f"{wanted}&cursor={cursor}")
        assert page["has_more"] == (page["next_cursor"] is not None)
        seen += [price["endpoint_id"] for price in page["prices"]]
        cursor = page["next_cursor"]
    assert seen == [f"a/{number}" for number in range(5)]


def test_a_bill_lists_what_was_executed(fal: Stand) -> None:
    """Runs and finished jobs are billed by units, price and discount; errors, refusals and waiting jobs are not."""
    fal.control("settings", {"percent_discount": "10"})
    run = fal.run("units=2.5").field("x-fal-request-id")
    fal.run("status=422")
    fal.run("status=429")
    fal.ask("queue.fal.run", "/fal-ai/flux/dev", content={}, faults="queued=60000")
    (bill,) = api(fal, BILLS)["billing_events"]
    assert (bill["request_id"], bill["output_units"], bill["unit_price"]) == (run, 2.5, 0.025)
    assert (bill["cost_subtotal"], bill["percent_discount"]) == (0.0625, 10.0)
    assert bill["cost_estimate_nano_usd"] == 56_250_000


def test_a_lost_answer_is_billed(fal: Stand) -> None:
    """Fal bills a run even if nobody receives the answer."""
    with fal.running("close=whole") as client:
        assert client.left_by_peer()
    (bill,) = api(fal, BILLS)["billing_events"]
    assert bill["output_units"] == 1


def test_a_bill_may_differ_from_the_head(fal: Stand) -> None:
    """`billed` bills other units than the answer told, or none where the answer told some."""
    assert fal.run("units=100,billed=1").field("x-fal-billable-units") == "100"
    assert fal.run("units=none,billed=3").field("x-fal-billable-units") is None
    assert [bill["output_units"] for bill in api(fal, BILLS)["billing_events"]] == [1, 3]


def test_bills_are_found_by_request_and_time(fal: Stand) -> None:
    """A bill can be asked for by request ids, endpoint and time."""
    ids = [fal.run().field("x-fal-request-id") for _ in range(3)]
    found = api(fal, f"{BILLS}?request_id={ids[0]},{ids[2]}")["billing_events"]
    assert [bill["request_id"] for bill in found] == [ids[0], ids[2]]
    assert len(api(fal, f"{BILLS}?endpoint_id=fal-ai/flux/dev")["billing_events"]) == 3
    assert api(fal, f"{BILLS}?endpoint_id=other/app")["billing_events"] == []
    assert api(fal, f"{BILLS}?start=2999-01-01")["billing_events"] == []
    assert len(api(fal, f"{BILLS}?end=2999-01-01T00:00:00Z")["billing_events"]) == 3


def test_a_bill_can_come_late(fal: Stand) -> None:
    """With `billing_delay_ms`, the truth comes later."""
    fal.control("settings", {"billing_delay_ms": 3_600_000})
    fal.run()
    assert api(fal, BILLS)["billing_events"] == []


def test_bills_are_for_the_admin_key(fal: Stand) -> None:
    """Where an admin key is set, no other key sees the bills, and it is taken everywhere."""
    fal.control("settings", {"admin_key": "admin:key"})
    assert fal.ask("api.fal.ai", BILLS, method="GET").status == 403
    assert api(fal, BILLS, fields=(("Authorization", "Key admin:key"),))["billing_events"] == []
    assert fal.run(fields=(("Authorization", f"Key {FAL_KEY}"),)).status == 200
