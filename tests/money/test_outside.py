"""What the ledger process does about the outside: an account to read, warnings, fal's prices, fal's bills."""

from __future__ import annotations

import hashlib
import hmac
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

import pytest

from gateway.money.usage_page import SnapshotReader
from gateway.platform.published import Published
from tests.harness.emulator import Emulator
from tests.harness.messages import message, proxy_request
from tests.harness.origin import answering
from tests.harness.policy import GatewayKey, policy_text
from tests.harness.ports import LOOPBACK
from tests.harness.process import clean_environment
from tests.harness.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.harness.client import Response
    from tests.harness.gateway import Gateway, StartGateway
    from tests.harness.origin import StartOrigin

ENDPOINT: Final = "fal-ai/flux/dev"
RUN: Final = f"https://fal.run/{ENDPOINT}"
PRICES: Final = [{"endpoint": ENDPOINT, "unit": "image", "usd": "0.025"}]
CANARY: Final = "canary-of-the-hook"
PAGE: Final = "https://app.example"


@pytest.fixture
def fal(tmp_path: Path) -> Iterator[Emulator]:
    """Run an emulator of the test's own, whose settings may be changed."""
    with Emulator(tmp_path / "emulator") as running:
        yield running


def buy(gateway: Gateway, key: GatewayKey, target: str = RUN) -> Response:
    """Run once."""
    with gateway.connect() as client:
        return client.ask(proxy_request(target, key=key, body=b'{"prompt": "a cat"}'))


def account(gateway: Gateway, key: GatewayKey | str | None, *fields: tuple[str, str], method: str = "GET") -> Response:
    """Read a key's account."""
    secret = getattr(key, "secret", key)
    named = [("Host", "gateway.test"), *([("Authorization", f"Key {secret}")] if secret else []), *fields]
    with gateway.connect() as client:
        return client.ask(message(f"{method} /api/fal/usage HTTP/1.1", named))


def test_a_key_reads_its_own_account(start_gateway: StartGateway, emulator: Emulator) -> None:
    """Spend, budgets and limits of the key and its team, and nobody else's; a few seconds old at most."""
    limit = {"name": "submits", "unit": "requests", "quota": 60, "window": 60, "class": "paid"}
    key = GatewayKey("web", entry={"budgets": [{"usd": "5", "period": "day"}], "limits": [limit]})
    other = GatewayKey("other", "research")
    policy = policy_text(key, other, prices=PRICES, clients={"cors_allowed_origins": [PAGE]})
    gateway = start_gateway(emulator, policy=policy)
    assert buy(gateway, key).status == 200
    assert buy(gateway, other).status == 200
    until(lambda: account(gateway, key).json()["spent_usd"]["day"] == "0.025", "the spend to be told")
    told = account(gateway, key)
    (budget,) = told.json()["budgets"]
    assert told.json()["spent_usd"] == {"day": "0.025", "week": "0.025", "month": "0.025"}
    assert (budget["scope"], budget["id"], budget["period"], budget["limit_usd"]) == ("key", "web", "day", "5")
    assert (budget["spent_usd"], budget["held_usd"]) == ("0.025", "0")
    assert budget["starts_at"] < budget["ends_at"]
    assert [(row["name"], row["quota"], row["window_seconds"]) for row in told.json()["limits"]] == [
        ("submits", 60, 60)
    ]
    assert account(gateway, other).json()["budgets"] == []
    assert gateway.metrics().value("requests_total") == 2, "an account that is read is no request to the proxy"


def test_an_account_is_read_so_often_and_no_more(start_gateway: StartGateway, emulator: Emulator) -> None:
    """A key that reads without end is refused after 600 readings; other keys read theirs, and its calls go on."""
    key, other = GatewayKey("web"), GatewayKey("other")
    gateway = start_gateway(emulator, policy=policy_text(key, other, prices=PRICES))
    named = [("Host", "gateway.test"), ("Authorization", f"Key {key.secret}")]
    with gateway.connect() as client:
        client.send(message("GET /api/fal/usage HTTP/1.1", named) * 610)
        answers = [client.read_response() for _ in range(610)]
    statuses = [answer.status for answer in answers]
    assert statuses[:600] == [200] * 600
    assert statuses[-1] == 429
    assert answers[-1].json()["error_type"] == "quota_exceeded"
    assert int(answers[-1].field("retry-after") or 0) >= 1
    assert account(gateway, other).status == 200
    assert buy(gateway, key).status == 200


def test_a_snapshot_is_read_once_for_all_keys() -> None:
    """However many ask, it is parsed again when another was published, and not before."""
    published = Published(largest_bytes=1000)
    reader = SnapshotReader(published)
    assert not reader.read()
    published.publish(b'{"spent": {}, "budgets": {}}')
    first = reader.read()
    assert first == {"spent": {}, "budgets": {}}
    assert reader.read() is first
    published.publish(b'{"spent": {"day": {"web": 1}}, "budgets": {}}')
    assert reader.read()["spent"] == {"day": {"web": 1}}


def test_only_a_key_reads_an_account(start_gateway: StartGateway, emulator: Emulator) -> None:
    """401 without one and with a wrong one; a page of an allowed origin may read it, and ask first."""
    key = GatewayKey()
    gateway = start_gateway(emulator, policy=policy_text(key, clients={"cors_allowed_origins": [PAGE]}))
    assert [account(gateway, who).status for who in (None, "wrong", key)] == [401, 401, 200]
    assert account(gateway, key, ("Origin", PAGE)).field("access-control-allow-origin") == PAGE
    asked = (("Origin", PAGE), ("Access-Control-Request-Method", "GET"))
    assert account(gateway, None, *asked, method="OPTIONS").status == 204
    assert account(gateway, key, method="DELETE").status == 404


def test_a_share_of_a_budget_is_warned_of_once(
    start_gateway: StartGateway, start_origin: StartOrigin, emulator: Emulator
) -> None:
    """One log event, one count and one signed post for each threshold, however often more is spent."""
    receiver = start_origin(answering())
    key = GatewayKey("web", entry={"budgets": [{"usd": "0.1", "period": "month", "warn_at": [0.25, 0.5]}]})
    hook = {"url": f"http://{LOOPBACK}:{receiver.port}/budget", "secret_env": "HOOK_SECRET"}
    gateway = start_gateway(
        emulator, policy=policy_text(key, prices=PRICES, budget_webhook=hook), **{hook["secret_env"]: CANARY}
    )
    for _ in range(3):
        assert buy(gateway, key).status == 200
    until(lambda: len(receiver.requests) == 2 and all(seen.whole for seen in receiver.requests), "both warnings")
    for seen in receiver.requests:
        signature = (seen.head.value(b"x-gateway-signature") or b"").decode()
        signed = {part.partition("=")[0]: part.partition("=")[2] for part in signature.split(",")}
        told = hmac.new(CANARY.encode(), f"{signed['t']}.".encode() + bytes(seen.body), hashlib.sha256)
        assert told.hexdigest() == signed["v1"]
    shares = sorted(json.loads(seen.body)["budget"]["share"] for seen in receiver.requests)
    assert shares == [0.25, 0.5]
    until(lambda: [event["share"] for event in gateway.events("budget_warning")] == [0.25, 0.5], "the log of both")
    assert gateway.metrics().value("budget_warnings_total", scope="key", id="web", period="month") == 2
    assert CANARY not in gateway.process.stderr() + gateway.metrics().text


def test_a_webhook_without_its_secret_is_an_error_at_start(tmp_path: Path) -> None:
    """Exit 78, and the place in the policy file; `check` only notes it."""
    policy = tmp_path / "policy.yaml"
    policy.write_text(policy_text(budget_webhook={"url": "https://h/x", "secret_env": "HOOK"}), encoding="utf-8")
    env = clean_environment({"FAL_KEY": "a:b", "FALGW_POLICY": str(policy)})
    for command, code in (("serve", 78), ("check", 0)):
        ran = subprocess.run(
            [sys.executable, "-m", "gateway", command],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == code
        assert "budget_webhook.secret_env" in ran.stdout + ran.stderr


def cost_of(gateway: Gateway, key: GatewayKey, endpoint: str) -> str | None:
    """Run an endpoint; return what it cost, None where that is not known."""
    return buy(gateway, key, f"https://fal.run/{endpoint}").field("x-gateway-cost-usd")


def test_prices_come_from_fal(start_gateway: StartGateway, fal: Emulator) -> None:
    """`price_source: fal`: endpoints that are called get fal's price, a price of the policy's stands above it.

    What is spent at one that the policy names begins at 0, before anything was.
    """
    other, named = {"unit": "image", "usd": "0.5"}, "a/named"
    fal.settings(prices={"a/b": other, named: other, ENDPOINT: {"unit": "image", "usd": "9"}})
    key = GatewayKey(entry={"allowed_endpoints": [named, "**"]})
    gateway = start_gateway(fal, policy=policy_text(key, prices=PRICES, price_source="fal"))
    until(lambda: cost_of(gateway, key, "a/b") == "0.5", "fal's price")
    assert cost_of(gateway, key, ENDPOINT) == "0.025"
    assert cost_of(gateway, key, "never/priced") is None
    costs = gateway.metrics().table("cost_usd_total", "key", "endpoint", "source")
    assert costs[key.id, named, "exact"] == 0
    spool = gateway.process.folder / "fal-gateway.db.spool"
    until((spool / "prices.json").is_file, "the prices on the disk")


def test_a_gateway_that_starts_in_an_outage_has_the_last_prices(start_gateway: StartGateway, fal: Emulator) -> None:
    """What was cached on the disk prices requests until fal answers again."""
    fal.settings(prices={"a/b": {"unit": "image", "usd": "0.5"}})
    key = GatewayKey()
    policy = policy_text(key, price_source="fal")
    first = start_gateway(fal, policy=policy)
    until(lambda: cost_of(first, key, "a/b") == "0.5", "fal's price")
    first.stop()
    fal.settings(faults={"api.fal.ai": "status=503"})
    database = f"sqlite:///{first.process.folder / 'fal-gateway.db'}"
    second = start_gateway(fal, policy=policy, FALGW_DATABASE_URL=database)
    until(lambda: cost_of(second, key, "a/b") == "0.5", "the price out of the cache")


def test_the_admin_key_goes_nowhere_but_to_the_bills(start_gateway: StartGateway, fal: Emulator) -> None:
    """With FAL_ADMIN_KEY set nothing of it is in requests, log or metrics."""
    key = GatewayKey()
    gateway = start_gateway(fal, policy=policy_text(key, prices=PRICES), FAL_ADMIN_KEY="admin:canary-of-the-admin")
    assert buy(gateway, key).status == 200
    seen: list[dict[str, Any]] = [visit for visit in fal.requests() if visit["host"] != "api.fal.ai"]
    assert seen
    assert "canary-of-the-admin" not in json.dumps(seen) + gateway.process.stderr() + gateway.metrics().text
