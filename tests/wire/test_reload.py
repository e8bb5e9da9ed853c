"""The policy of a running gateway: changed, it is in force in every worker; broken, it changes nothing."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

import pytest

from gateway.config import file_watch as filewatch
from gateway.processes import composition as app
from gateway.processes import policy as reloader
from tests.harness.messages import http_response, message, proxy_request
from tests.harness.policy import GatewayKey, policy_text
from tests.harness.waiting import until
from tests.wire.test_workers import server_of, workers_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.harness.client import RawClient
    from tests.harness.gateway import Gateway, StartGateway
    from tests.harness.origin import OriginConnection, ScriptedOrigin, StartOrigin

WORKERS: Final = 2
BROKEN: Final = "teams: [{id: Design}]\nkeys:\n  - id: k\n    team: nobody\n    digests: []\n"
STAYS: Final = GatewayKey(id="stays")
GOES: Final = GatewayKey(id="goes", team="research")
PRICE: Final = {"endpoint": "fal-ai/flux/dev", "unit": "image", "usd": "0.025"}
BOTH: Final = policy_text(STAYS, GOES)
ONE: Final = policy_text(STAYS)


class House:
    """A gateway of two workers with a connection to each of them."""

    def __init__(self, gateway: Gateway, lines: list[RawClient]) -> None:
        self.gateway = gateway
        self.lines = lines

    def statuses(self, key: GatewayKey) -> list[int]:
        """Return what each worker answers this key."""
        return [line.ask(proxy_request(key=key)).status for line in self.lines]

    def replace(self, text: str) -> None:
        """Put another policy in place by rename."""
        new = self.gateway.policy_file.with_suffix(".new")
        new.write_text(text, encoding="utf-8")
        new.rename(self.gateway.policy_file)

    def wait_for_generation(self, generation: int) -> None:
        """Wait until every worker has reached it."""
        until(lambda: self.generation() == generation, f"generation {generation} in every worker")

    def generation(self) -> int:
        """Return what `/readyz` says, and check that `/metrics` does."""
        said = int(self.gateway.ask_ops("/readyz").json()["policy_generation"])
        later = int(self.gateway.metrics().value("policy_generation"))
        assert said <= later
        return said


def connected(stack: ExitStack, gateway: Gateway) -> list[RawClient]:
    """Return a connection to each worker; the kernel shares callers out."""
    workers = workers_of(gateway)
    found: dict[int, RawClient] = {}
    for _ in range(200):
        client = stack.enter_context(gateway.connect())
        client.ask(proxy_request())
        found.setdefault(server_of(client, workers), client)
        if len(found) == len(workers):
            break
    assert len(found) == WORKERS
    return list(found.values())


@pytest.fixture
def open_house(start_gateway: StartGateway, start_origin: StartOrigin) -> Iterator[Callable[..., House]]:
    """Return `open(policy, origin=…, **env)`: a gateway of two workers and a connection to each."""
    with ExitStack() as stack:

        def open_(policy: str = BOTH, *, origin: ScriptedOrigin | None = None, **env: str) -> House:
            gateway = start_gateway(origin or start_origin(), policy=policy, workers=WORKERS, **env)
            until(lambda: len(workers_of(gateway)) == WORKERS, "both workers")
            return House(gateway, connected(stack, gateway))

        yield open_


def test_a_revoked_key_is_refused_in_every_worker(open_house: Callable[..., House]) -> None:
    """Each worker takes up the new file by itself; other keys notice nothing, and the log says what is in force."""
    house = open_house()
    assert (house.statuses(GOES), house.generation()) == ([200] * WORKERS, 1)
    house.replace(ONE)
    house.wait_for_generation(2)
    assert (house.statuses(GOES), house.statuses(STAYS)) == ([401] * WORKERS, [200] * WORKERS)
    event = house.gateway.wait_for_event("policy_reloaded")
    assert [event[name] for name in ("generation", "teams", "keys", "prices")] == [2, 1, 1, 0]
    assert house.gateway.metrics().value("policy_generation") == 2
    assert house.gateway.metrics().value("policy_reload_errors_total") == 0


def test_the_waits_leave_most_of_a_second_for_the_work() -> None:
    """From a change to its refusals there is 1 s; mere waiting takes less than a third of it."""
    waits = 2 * reloader.TICK_SECONDS + filewatch.STILL_SECONDS + app._FOLLOW_SECONDS
    assert waits < 0.333


def test_a_secret_is_rotated_without_a_gap(open_house: Callable[..., House]) -> None:
    """Old, then both, then the new one alone: the new one is taken before the old one is refused."""
    old, new = GatewayKey(id="rotating"), GatewayKey(id="rotating")
    both = GatewayKey(id="rotating", entry={"digests": [old.digest, new.digest]})
    house = open_house(policy_text(old))
    assert (house.statuses(old), house.statuses(new)) == ([200] * WORKERS, [401] * WORKERS)
    house.replace(policy_text(both))
    house.wait_for_generation(2)
    assert (house.statuses(old), house.statuses(new)) == ([200] * WORKERS, [200] * WORKERS)
    house.replace(policy_text(new))
    house.wait_for_generation(3)
    assert (house.statuses(old), house.statuses(new)) == ([401] * WORKERS, [200] * WORKERS)


def test_a_broken_file_changes_nothing(open_house: Callable[..., House]) -> None:
    """The old policy stays in force, every error is named in one event, it is counted, and readiness is unchanged."""
    house = open_house()
    house.replace(BROKEN)
    event = house.gateway.wait_for_event("policy_reload_failed")
    assert event["level"] == "error"
    assert [error.partition(":")[0] for error in event["errors"]] == [
        "teams[0].id",
        "keys[0].team",
        "keys[0].digests",
    ]
    assert (house.statuses(STAYS), house.statuses(GOES)) == ([200] * WORKERS, [200] * WORKERS)
    assert (house.gateway.ready(), house.generation()) == (True, 1)
    assert house.gateway.metrics().value("policy_reload_errors_total") == 1
    house.replace(ONE)
    house.wait_for_generation(2)
    assert house.statuses(GOES) == [401] * WORKERS
    assert len(house.gateway.events("policy_reload_failed")) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing is left\n",
        policy_text(),
        policy_text(GatewayKey(id="stays", secret=STAYS.secret, entry={"expires_at": "2026-01-01T00:00:00Z"})),
    ],
    ids=["empty", "comment", "no keys", "expired"],
)
def test_a_policy_through_which_nobody_can_call_is_refused(open_house: Callable[..., House], text: str) -> None:
    """The old one stays active, and the log says why; anonymous callers are somebody."""
    house = open_house()
    house.replace(text)
    event = house.gateway.wait_for_event("policy_reload_failed")
    assert event["errors"][0].startswith("keys: nobody can call")
    assert (house.statuses(STAYS), house.generation()) == ([200] * WORKERS, 1)
    house.replace(policy_text(clients={"allow_unauthorized_requests": True}))
    house.wait_for_generation(2)


@pytest.mark.parametrize(
    ("entry", "endpoints", "place"),
    [
        ({}, ["fal-ai/kling/**"], "targets"),
        ({"allowed_endpoints": ["fal-ai/kling/**"]}, ["fal-ai/**"], "keys"),
        ({"budgets": [{"usd": "1", "period": "day"}]}, ["fal-ai/**"], "keys"),
    ],
    ids=["targets", "own endpoints", "no price"],
)
def test_values_that_shut_everybody_out_together_are_refused(
    open_house: Callable[..., House], entry: dict[str, Any], endpoints: list[str], place: str
) -> None:
    """Keys are valid, and each value is; the old policy stays active, and the log says what does not go together."""
    house = open_house()
    targets = {"allowed_url_patterns": ["fal.run/fal-ai/flux/**"], "allowed_endpoints": endpoints}
    house.replace(policy_text(GatewayKey(id="stays", secret=STAYS.secret, entry=entry), targets=targets))
    event = house.gateway.wait_for_event("policy_reload_failed")
    assert event["errors"][0].startswith(f"{place}: nobody can call")
    assert (house.statuses(STAYS), house.generation()) == ([200] * WORKERS, 1)


def test_a_budget_of_nothing_is_taken_with_a_warning(open_house: Callable[..., House]) -> None:
    """It stops all spending at once, as somebody in a hurry wants it: no reload refuses that."""
    house = open_house(unbudgeted := policy_text(STAYS, prices=[PRICE]))
    broke = GatewayKey(id="stays", secret=STAYS.secret, entry={"budgets": [{"usd": "0", "period": "day"}]})
    house.replace(policy_text(broke, prices=[PRICE]))
    assert house.gateway.wait_for_event("policy_admits_no_purchase")["level"] == "warning"
    house.wait_for_generation(2)
    until(lambda: house.statuses(STAYS) == [402] * WORKERS, "a refusal by the new budget in every worker")
    house.replace(unbudgeted)
    house.wait_for_generation(3)
    assert len(house.gateway.events("policy_admits_no_purchase")) == 1


def test_a_start_with_a_policy_through_which_nobody_can_call_is_warned_of(
    start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    """It may be the first day of a gateway: it starts, says so, and takes the first key when it comes."""
    gateway = start_gateway(start_origin(), policy=policy_text())
    assert gateway.wait_for_event("policy_admits_nobody")["level"] == "warning"
    gateway.policy_file.write_text(policy_text(STAYS), encoding="utf-8")
    gateway.wait_for_event("policy_reloaded")


def rewritten(gateway: Gateway, text: str) -> None:
    """Write into the same file."""
    gateway.policy_file.write_text(text, encoding="utf-8")


def with_the_old_time(gateway: Gateway, text: str) -> None:
    """Write into the same file, and set its time back."""
    before = gateway.policy_file.stat()
    gateway.policy_file.write_text(text, encoding="utf-8")
    os.utime(gateway.policy_file, ns=(before.st_atime_ns, before.st_mtime_ns))


def taken_away_and_put_back(gateway: Gateway, text: str) -> None:
    """Let there be no file until that is noticed."""
    gateway.policy_file.unlink()
    gateway.wait_for_event("policy_reload_failed")
    gateway.policy_file.write_text(text, encoding="utf-8")


@pytest.mark.parametrize("change", [rewritten, with_the_old_time, taken_away_and_put_back])
def test_any_way_of_changing_a_file_is_seen(
    open_house: Callable[..., House], change: Callable[[Gateway, str], None]
) -> None:
    """Not only a rename: editors write in place, and some tools keep a file's time."""
    house = open_house()
    change(house.gateway, ONE)
    house.wait_for_generation(2)
    assert house.statuses(GOES) == [401] * WORKERS


def test_a_config_map_is_followed(open_house: Callable[..., House], tmp_path: Path) -> None:
    """Kubernetes swaps the link `..data` two levels above the file that is named."""
    mounted = tmp_path / "mounted"
    for name, text in (("..2026_1", BOTH), ("..2026_2", ONE)):
        (mounted / name).mkdir(parents=True)
        (mounted / name / "policy.yaml").write_text(text, encoding="utf-8")
    (mounted / "..data").symlink_to("..2026_1")
    (mounted / "policy.yaml").symlink_to("..data/policy.yaml")
    house = open_house(FALGW_POLICY=str(mounted / "policy.yaml"))
    assert house.statuses(GOES) == [200] * WORKERS
    (mounted / "..data_tmp").symlink_to("..2026_2")
    (mounted / "..data_tmp").rename(mounted / "..data")
    house.wait_for_generation(2)
    assert house.statuses(GOES) == [401] * WORKERS
    assert not house.gateway.events("policy_reload_failed")


def test_a_policy_that_takes_long_to_read_holds_up_nothing(open_house: Callable[..., House], tmp_path: Path) -> None:
    """While one process reads it, here out of a pipe that no one writes to, a worker that dies is started again."""
    house = open_house()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    pipe.rename(house.gateway.policy_file)
    writer = until(lambda: opened(house.gateway.policy_file), "the policy to be read")
    killed = min(workers_of(house.gateway))
    os.kill(killed, signal.SIGKILL)
    until(lambda: len(set(workers_of(house.gateway)) - {killed}) == WORKERS, "two workers again", timeout_seconds=15)
    assert house.generation() == 1
    regular = tmp_path / "regular"
    regular.write_text(ONE, encoding="utf-8")
    regular.rename(house.gateway.policy_file)  # for whoever reads it again
    os.write(writer, ONE.encode())
    os.close(writer)
    house.wait_for_generation(2)


def opened(pipe: Path) -> int | None:
    """Return the writing end of a named pipe; None while no one reads it."""
    try:
        return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return None


def test_sighup_reloads_an_unchanged_file(open_house: Callable[..., House]) -> None:
    """The generation rises, and no worker is lost, also where the whole process group gets the signal."""
    house = open_house()
    house.gateway.process.signal(signal.SIGHUP)
    house.wait_for_generation(2)
    os.killpg(house.gateway.pid, signal.SIGHUP)
    house.wait_for_generation(3)
    assert house.statuses(STAYS) == [200] * WORKERS
    assert not house.gateway.events("process_died")


def test_sighup_without_a_file_is_said(start_gateway: StartGateway, start_origin: StartOrigin) -> None:
    """There is nothing to reload; the log says so, and nothing else happens."""
    gateway = start_gateway(start_origin(), FALGW_POLICY="")
    gateway.process.signal(signal.SIGHUP)
    assert "no policy file" in gateway.wait_for_event("policy_reload_skipped")["reason"]
    assert gateway.ask_ops("/readyz").json()["policy_generation"] == 1


def test_an_open_stream_outlives_its_key(open_house: Callable[..., House], start_origin: StartOrigin) -> None:
    """What was admitted runs out under the rules that it began with, and counts for its key."""
    end = threading.Event()

    def script(connection: OriginConnection) -> None:
        while (request := connection.read_request()) is not None:
            if request.body != b'"stream"':
                connection.send(http_response())
                continue
            fields = [("Content-Type", "text/event-stream"), ("Transfer-Encoding", "chunked")]
            connection.send(message("HTTP/1.1 200 OK", fields, b"b\r\ndata: one\n\n\r\n"))
            assert end.wait(30)
            connection.send(b"9\r\ndata: end\r\n0\r\n\r\n")

    try:
        house = open_house(origin=start_origin(script))
        streams = house.lines
        for stream in streams:
            stream.send(proxy_request(key=GOES, body=b'"stream"'))
            stream.reader.through(b"data: one\n\n\r\n")
        house.replace(ONE)
        house.wait_for_generation(2)
        with house.gateway.connect() as late:
            assert late.ask(proxy_request(key=GOES)).status == 401
        end.set()
        for stream in streams:
            assert stream.reader.through(b"0\r\n\r\n") == b"9\r\ndata: end\r\n0\r\n\r\n"
        assert house.statuses(GOES) == [401] * WORKERS
    finally:
        end.set()
    until(
        lambda: house.gateway.metrics().value("requests_total", key="goes", status="200") == WORKERS,
        "the streams to be counted",
    )


def test_a_worker_that_comes_back_has_the_newest_rules(open_house: Callable[..., House]) -> None:
    """One that is killed after a reload does not begin with what the gateway was started with."""
    house = open_house()
    house.replace(ONE)
    house.wait_for_generation(2)
    killed = min(workers_of(house.gateway))
    os.kill(killed, signal.SIGKILL)
    until(lambda: len(set(workers_of(house.gateway)) - {killed}) == WORKERS, "two workers again", timeout_seconds=15)
    until(lambda: house.gateway.ask_ops("/readyz").json()["workers"]["ready"] == WORKERS, "both to be ready")
    assert house.generation() == 2
    with ExitStack() as stack:
        house.lines = connected(stack, house.gateway)
        assert (house.statuses(GOES), house.statuses(STAYS)) == ([401] * WORKERS, [200] * WORKERS)


def test_reloads_in_a_row_end_with_the_last(open_house: Callable[..., House]) -> None:
    """However fast files follow each other, while workers are killed and callers call, all end with the last one."""
    house = open_house()
    os.kill(min(workers_of(house.gateway)), signal.SIGKILL)
    for number in range(20):
        house.replace(policy_text(STAYS, GatewayKey(id=f"passing-{number}")))
        time.sleep(0.02)  # some are seen, some are not
    house.replace(ONE)
    until(lambda: house.gateway.events("policy_reloaded")[-1:], "a reload")
    until(lambda: house.gateway.events("policy_reloaded")[-1]["keys"] == 1, "the last file to be in force")
    last = house.gateway.events("policy_reloaded")[-1]["generation"]
    house.wait_for_generation(last)
    with ExitStack() as stack:
        until(lambda: len(workers_of(house.gateway)) == WORKERS, "two workers again", timeout_seconds=15)
        house.lines = connected(stack, house.gateway)
        assert (house.statuses(GOES), house.statuses(STAYS)) == ([401] * WORKERS, [200] * WORKERS)


def test_limits_change_with_the_policy(open_house: Callable[..., House]) -> None:
    """A limit that a reload brings holds in all workers together, and one that it takes away holds no more."""
    limits = [{"name": "few", "unit": "requests", "quota": 1, "window": "3600s"}]
    house = open_house(ONE)
    assert house.statuses(STAYS) == [200] * WORKERS
    house.replace(policy_text(GatewayKey(id=STAYS.id, secret=STAYS.secret, entry={"limits": limits})))
    house.wait_for_generation(2)
    assert house.statuses(STAYS) == [200, 429]
    house.replace(ONE)
    house.wait_for_generation(3)
    assert house.statuses(STAYS) == [200] * WORKERS


def test_metrics_know_what_a_reload_brings(open_house: Callable[..., House]) -> None:
    """New keys and prices start at 0, and an endpoint that is priced now has a label of its own in every worker."""
    crowd = [f"https://fal.run/crowd/app-{number}" for number in range(60)]
    house = open_house(ONE)
    for line in house.lines:
        for target in crowd:
            line.ask(proxy_request(target, key=STAYS))
        line.ask(proxy_request("https://fal.run/acme/late", key=STAYS))
    assert not [s for s in house.gateway.metrics().series("requests_total") if s["endpoint"] == "acme/late"]
    price = {"endpoint": "acme/late", "unit": "image", "usd": "0.1"}
    house.replace(policy_text(STAYS, GOES, prices=[price]))
    house.wait_for_generation(2)
    metrics = house.gateway.metrics()
    new = {"team": "research", "key": "goes", "endpoint": "acme/late", "class": "paid", "status": "200"}
    assert new in metrics.series("requests_total")
    assert {"team": "research", "key": "goes", "error_type": "quota_exceeded"} in metrics.series("refusals_total")
    assert metrics.value("requests_total", endpoint="acme/late") == 0
    for line in house.lines:
        line.ask(proxy_request("https://fal.run/acme/late", key=GOES))
    until(
        lambda: house.gateway.metrics().value("requests_total", endpoint="acme/late") == WORKERS,
        "both workers to count under the name",
    )
