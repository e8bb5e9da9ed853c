"""Policies through which somebody can call or buy, and those through which nobody can."""

from __future__ import annotations

from typing import Any, Final

import pytest

from gateway.config.access import Access
from gateway.config.policy_schema import Document
from tests.harness.policy import GatewayKey

NOW: Final = 1_790_000_000.0
FLUX_ONLY: Final = {"allowed_url_patterns": ["fal.run/fal-ai/flux/**", "queue.fal.run/fal-ai/flux/**"]}
DEV: Final = {"endpoint": "fal-ai/flux/dev", "unit": "image", "usd": "0.025"}
SPLIT: Final = "no endpoint is allowed by both allowed_url_patterns and allowed_endpoints"
OWN: Final = "can call nothing: no endpoint is allowed by its allowed_endpoints and by targets"
ZERO: Final = [{"usd": "0", "period": "month"}]
ONE: Final = [{"usd": "1", "period": "day"}]


def policy(*entries: dict[str, Any], team: dict[str, Any] | None = None, **sections: Any) -> Access:  # noqa: ANN401
    """Return what can be done under a policy with a key for each entry."""
    keys = [GatewayKey(id=f"key-{index}", entry=entry).as_policy() for index, entry in enumerate(entries)]
    teams = [{"id": name, **(team or {})} for name in {key["team"] for key in keys}]
    return Access(Document.model_validate({"teams": teams, "keys": keys, **sections}), NOW)


@pytest.mark.parametrize(
    ("patterns", "endpoints"),
    [
        (["fal.run/fal-ai/flux/**"], ["fal-ai/kling/**"]),
        (["fal.run/fal-ai/flux/**", "rest.fal.ai/storage/upload/**"], ["fal-ai/kling/**", "fal-ai/veo3"]),
        (["queue.fal.run/fal-ai/flux/dev"], ["fal-ai/flux/schnell"]),
        (["*.fal.run/*/flux/**"], ["fal-ai/veo3/**", "*/*y"]),
        (["fal.run/workflows/acme/**"], ["workflows/other/**", "acme/**"]),
        (["fal.run/fal-ai/flux/dev?x=1"], ["fal-ai/flux/pro"]),
    ],
)
def test_targets_that_never_match_together_admit_nobody(patterns: list[str], endpoints: list[str]) -> None:
    """Each list is right by itself; callers with a key and without one are shut out alike."""
    targets = {"allowed_url_patterns": patterns, "allowed_endpoints": endpoints}
    access = policy({}, targets=targets, clients={"allow_unauthorized_requests": True})
    assert access.is_closed
    assert access.findings() == [("targets", f"nobody can call: {SPLIT}")]


@pytest.mark.parametrize(
    ("patterns", "endpoints"),
    [
        (["fal.run/fal-ai/flux/**"], ["**/dev"]),
        (["fal.run/fal-ai/flux/dev/"], ["fal-ai/flux/dev"]),
        (["fal.run/fal-ai/flux/dev/stream"], ["fal-ai/flux/dev"]),
        (["fal.run/fal-ai/flux/dev?*"], ["fal-ai/flux/*"]),
        (["queue.fal.run/fal-ai/flux/requests/**"], ["fal-ai/flux/dev"]),
        (["queue.fal.run/*/*/requests/**"], ["fal-ai/**"]),
        (["queue.fal.run/workflows/*/*/requests/**"], ["workflows/acme/**"]),
        (["*.fal.run/**"], ["fal-ai/flux/dev"]),
        (["rest.fal.ai/storage/upload/**"], ["fal-ai/flux/dev"]),
        (["rest.fal.ai/tokens/"], ["fal-ai/flux/dev"]),
        (["rest.fal.ai/s*/**"], ["fal-ai/flux/dev"]),
        (["rest.fal.ai/**"], ["fal-ai/flux/dev"]),
    ],
)
def test_targets_that_can_match_together_admit_somebody(patterns: list[str], endpoints: list[str]) -> None:
    """A slash at the end, `stream`, a query and a job's own paths are ways to an endpoint, too; uploads name none."""
    access = policy({}, targets={"allowed_url_patterns": patterns, "allowed_endpoints": endpoints})
    assert not access.is_closed
    assert access.findings() == []


def test_a_key_whose_own_list_never_matches_is_named() -> None:
    """The others can call; what `targets` allows and what the patterns reach both count."""
    targets = {**FLUX_ONLY, "allowed_endpoints": ["fal-ai/**"]}
    entries = [{"allowed_endpoints": [glob]} for glob in ("fal-ai/flux/dev", "fal-ai/kling/**", "**/pro", "acme/**")]
    access = policy(*entries, targets=targets)
    assert not access.is_closed
    assert access.findings() == [("keys[1]", OWN), ("keys[3]", OWN)]


def test_a_key_whose_jobs_alone_are_reachable_cannot_call() -> None:
    """Owner and alias in common are no endpoint in common: there is no job that it could have submitted."""
    access = policy({"allowed_endpoints": ["fal-ai/flux/dev"]}, targets={"allowed_endpoints": ["fal-ai/flux/pro"]})
    assert access.is_closed


def test_all_keys_shut_out_is_nobody_each_with_its_reason() -> None:
    """Expired keys are no one, and are not named: that is what their date is for."""
    entries: list[dict[str, Any]] = [
        {"expires_at": "2020-01-01T00:00:00Z"},
        {"allowed_endpoints": ["acme/**"]},
        {"budgets": ONE},
    ]
    access = policy(*entries, targets=FLUX_ONLY)
    assert access.is_closed
    first, *others = access.closed_findings()
    assert first.message.startswith("nobody can call: no key that has not expired can call anything")
    assert [finding.place for finding in others] == ["keys[1]", "keys[2]"]
    assert "no endpoint that it may call has a price" in others[1].message


@pytest.mark.parametrize(
    ("entry", "sections", "closed"),
    [
        ({}, {}, False),
        ({"budgets": ONE}, {}, True),
        ({"budgets": ONE}, {"prices": [DEV]}, False),
        ({"budgets": ONE}, {"unpriced_endpoints": "allow"}, False),
        ({"budgets": ONE}, {"price_source": "fal"}, False),
        ({"budgets": ONE, "allowed_endpoints": ["fal-ai/kling/**"]}, {"prices": [DEV]}, True),
        ({"budgets": ONE}, {"prices": [DEV], "targets": {"allowed_url_patterns": ["fal.run/acme/**"]}}, True),
        ({"budgets": ONE, "realtime": {"mode": "allow"}}, {}, False),
    ],
)
def test_under_a_budget_a_price_is_required(entry: dict[str, Any], sections: dict[str, Any], closed: bool) -> None:  # noqa: FBT001
    """Where no endpoint that a key may call has one, each call would be refused with `endpoint_unpriced`."""
    assert policy(entry, **sections).is_closed is closed


def test_tokens_alone_need_a_mode_that_gives_them_out() -> None:
    """A policy for realtime only, in which a budget refuses tokens, is of no use to its key."""
    targets = {"allowed_url_patterns": ["rest.fal.ai/tokens/"]}
    assert policy({"realtime": {"mode": "refuse"}}, targets=targets).is_closed
    assert policy({"budgets": ONE}, targets=targets).is_closed
    assert not policy({"budgets": ONE, "realtime": {"mode": "allow"}}, targets=targets).is_closed


@pytest.mark.parametrize("place", ["key", "team"])
def test_a_budget_of_nothing_lets_nobody_buy_and_is_no_closed_policy(place: str) -> None:
    """An operator may stop all spending so, while jobs are still fetched."""
    entry, team = ({"budgets": ZERO}, {}) if place == "key" else ({}, {"budgets": ZERO})
    access = policy(entry, team=team, prices=[DEV])
    assert (access.is_closed, access.is_without_purchases) == (False, True)
    assert [finding.place for finding in access.findings()] == ["keys", "keys[0]"]
    assert access.findings()[0].message.startswith("nobody can buy")
    both = policy(entry, {"budgets": ONE}, team=team, prices=[DEV])
    assert both.is_without_purchases is (place == "team")


@pytest.mark.parametrize(
    ("usd", "sections", "buys"),
    [
        ("0", {"prices": [{**DEV, "usd": "0"}]}, True),
        ("0", {"prices": [DEV], "unpriced_endpoints": "allow"}, True),
        ("0", {"price_source": "fal"}, False),
        ("0.01", {"price_source": "fal"}, True),
        ("0.01", {"prices": [DEV]}, True),
        ("0.01", {"prices": [{**DEV, "typical_units": "1"}]}, False),
        ("0.025", {"prices": [{**DEV, "typical_units": "1"}]}, True),
    ],
)
def test_a_budget_below_every_estimate_buys_nothing(usd: str, sections: dict[str, Any], buys: bool) -> None:  # noqa: FBT001
    """Units that are not said may turn out to be few; what costs nothing fits in any budget."""
    access = policy({"budgets": [{"usd": usd, "period": "day"}]}, **sections)
    assert access.is_without_purchases is not buys


def test_unpriced_endpoints_help_only_who_may_call_one() -> None:
    """A key for one endpoint, which has a price, can buy nothing else."""
    entry = {"budgets": ZERO, "allowed_endpoints": ["fal-ai/flux/dev"]}
    assert policy(entry, prices=[DEV], unpriced_endpoints="allow").is_without_purchases
