"""Queue jobs belong to who submitted them, whichever worker is asked."""

from __future__ import annotations

import gzip
import os
import signal
import time
import uuid
from contextlib import closing
from typing import TYPE_CHECKING, Final

import psutil
import pytest

from gateway.ledger.ledger import Ledger
from gateway.proxy.exchange import HELD_BYTES
from tests.harness.gateway import Gateway
from tests.harness.messages import http_response, proxy_request
from tests.harness.origin import ScriptedOrigin, answering
from tests.harness.policy import GatewayKey, policy_text
from tests.harness.waiting import until
from tests.ledger.rows import bound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.harness.gateway import StartGateway
    from tests.harness.origin import Received, StartOrigin

WEB = GatewayKey("web", "design")
MOBILE = GatewayKey("mobile", "design")
OTHER = GatewayKey("other", "research")
NARROW = GatewayKey("narrow", "design", entry={"allowed_endpoints": ["fal-ai/flux/schnell"]})
ID = "5f0f5e0c-6d3f-4f2f-9a53-c7b3a8f7f1aa"
SUBMIT = "https://queue.fal.run/fal-ai/flux/dev"
STATUS = f"https://queue.fal.run/fal-ai/flux/requests/{ID}/status"


@pytest.fixture(scope="module")
def shared_queue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Run a gateway for all hosts of the queue, through which WEB has submitted the job."""
    patterns = ["queue.fal.run/**", "queue.falrun.com/**"]
    with ScriptedOrigin(answering(queue)) as origin:
        base = f"http://127.0.0.1:{origin.port}"
        env = {"FALGW_ORIGIN_OVERRIDES": f"queue.fal.run={base},queue.falrun.com={base}"}
        policy = policy_text(WEB, OTHER, targets={"allowed_url_patterns": patterns})
        with Gateway(tmp_path_factory.mktemp("queue"), policy=policy, env=env) as gateway:
            assert status_of(gateway.wait_ready(), WEB, SUBMIT, "POST") == (200, None)
            yield gateway


def queue(request: Received) -> bytes:
    """Answer a submit with the id, and all else with an empty object."""
    return http_response(f'{{"request_id": "{ID}"}}'.encode() if request.method == "POST" else b"{}")


def status_of(gateway: Gateway, key: GatewayKey, target: str = STATUS, method: str = "GET") -> tuple[int, str | None]:
    """Return (status, error type) of one request on a connection of its own."""
    with gateway.connect() as client:
        response = client.ask(proxy_request(target, key=key, method=method))
        return response.status, response.field("x-fal-error-type")


@pytest.mark.parametrize(("isolation", "mate"), [("team", 200), ("key", 404), ("none", 200)])
def test_a_job_is_hidden_from_others_in_every_worker(
    start_gateway: StartGateway, start_origin: StartOrigin, isolation: str, mate: int
) -> None:
    """The submitter polls, fetches and cancels; a mate as isolation says; another team gets 404 and no hint."""
    origin = start_origin(answering(queue))
    policy = policy_text(WEB, MOBILE, OTHER, targets={"isolate_jobs": isolation})
    gateway = start_gateway(origin, policy=policy, workers=2)
    assert status_of(gateway, WEB, SUBMIT, "POST") == (200, None)
    stranger = (200, None) if isolation == "none" else (404, "job_unknown")
    for _ in range(8):  # both workers are asked, as the kernel deals connections out
        assert status_of(gateway, WEB)[0] == 200
        assert status_of(gateway, MOBILE)[0] == mate
        assert status_of(gateway, OTHER) == stranger
    cancel = STATUS.replace("/status", "/cancel")
    assert status_of(gateway, OTHER, cancel, "PUT") == stranger


def test_the_default_isolates_teams(start_gateway: StartGateway, start_origin: StartOrigin) -> None:
    """Without a word in the policy another team's job is not there."""
    gateway = start_gateway(start_origin(answering(queue)), policy=policy_text(WEB, OTHER))
    assert status_of(gateway, OTHER)[0] == 200, "a job that did not come through here may be polled by any key"
    assert status_of(gateway, WEB, SUBMIT, "POST")[0] == 200
    assert status_of(gateway, OTHER) == (404, "job_unknown")


def compressing(request: Received) -> bytes:
    """Answer as a server that compresses for all who let it (RFC 9110, section 12.5.3)."""
    content, accepted = b'{"request_id": "%b"}' % ID.encode(), request.head.value(b"accept-encoding") or b"gzip"
    if request.method != "POST" or b"gzip" not in accepted:
        return queue(request)
    coding = (("Content-Type", "application/json"), ("Content-Encoding", "gzip"))
    return http_response(gzip.compress(content), fields=coding)


@pytest.mark.parametrize(
    ("answer", "fields"),
    [
        (compressing, [("Accept-Encoding", "gzip, br")]),
        (compressing, [("Accept-Encoding", ""), ("Accept-Encoding", "gzip")]),
        (compressing, []),
        (http_response(b'{"request_id": "%b"}' % ID.encode(), 202), []),
        (http_response(b'{"request_id": "%b"}' % ID.encode(), fields=()), []),
    ],
    ids=["compressed for the caller", "asked for twice", "compressed by default", "202", "no content type"],
)
def test_every_submit_that_succeeded_binds_its_job(
    start_gateway: StartGateway,
    start_origin: StartOrigin,
    answer: Callable[[Received], bytes] | bytes,
    fields: list[tuple[str, str]],
) -> None:
    """Whatever coding the caller takes, and whichever success fal answers: no other team may ask for the job."""
    gateway = start_gateway(start_origin(answering(answer)), policy=policy_text(WEB, OTHER))
    with gateway.connect() as client:
        submitted = client.ask(proxy_request(SUBMIT, key=WEB, fields=fields))
    assert (submitted.status // 100, submitted.json()) == (2, {"request_id": ID})
    assert status_of(gateway, WEB)[0] // 100 == 2
    assert status_of(gateway, OTHER) == (404, "job_unknown")


LONG: Final = b'{"request_id": "%b", "padding": "%b"}' % (ID.encode(), b"x" * 8 * HELD_BYTES)


@pytest.mark.parametrize("in_chunks", [False, True])
def test_a_submit_whose_answer_is_too_long_to_read_is_an_error(
    start_gateway: StartGateway,
    start_origin: StartOrigin,
    in_chunks: bool,  # noqa: FBT001 (pytest's way)
) -> None:
    """Its job would be known to no gateway, and so open to all teams; it may be executed, so not for repeating."""
    origin = start_origin(answering(http_response(LONG, in_chunks=in_chunks)))
    gateway = start_gateway(origin, policy=policy_text(WEB, OTHER))
    assert status_of(gateway, WEB, SUBMIT, "POST") == (500, "origin_failed")
    refused = http_response(LONG, 422, in_chunks=in_chunks)
    origin = start_origin(answering(refused))
    gateway = start_gateway(origin, policy=policy_text(WEB, OTHER))
    assert status_of(gateway, WEB, SUBMIT, "POST") == (422, None), "no job came of it"


def test_a_known_job_counts_for_the_endpoint_that_was_submitted(
    start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    """A poll's URL has owner and alias only; label, log and endpoint globs go by the submitted endpoint."""
    gateway = start_gateway(start_origin(answering(queue)), policy=policy_text(WEB, NARROW))
    assert status_of(gateway, NARROW)[0] == 200, "unknown jobs are admitted by owner and alias"
    assert status_of(gateway, WEB, SUBMIT, "POST")[0] == 200
    assert status_of(gateway, WEB)[0] == 200
    assert status_of(gateway, NARROW) == (403, "endpoint_not_allowed")
    event = gateway.wait_for_event("exchange", lambda event: event["class"] == "free" and event["key"] == "web")
    assert event["endpoint"] == "fal-ai/flux/dev"
    assert gateway.metrics().value("requests_total", endpoint="fal-ai/flux/dev", **{"class": "free"}) == 2


def test_one_gateway_asks_its_ledger_too(
    start_gateway: StartGateway, start_origin: StartOrigin, tmp_path: Path
) -> None:
    """A job that its memory has forgotten is its owner's; while the ledger process does not answer, no one gets it."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    gateway = start_gateway(start_origin(answering(queue)), policy=policy_text(WEB, OTHER), FALGW_DATABASE_URL=url)
    assert status_of(gateway, WEB, SUBMIT, "POST")[0] == 200
    old_id, at_us = "764cabcf-b745-4b3e-ae38-1200304cf45b", time.time_ns() // 1_000 - 9 * 86_400 * 10**6
    row = bound(1, fal_request_id=old_id, key=WEB.id, team=WEB.team, admitted_at_us=at_us, changed_at_us=at_us)
    with closing(Ledger(url)) as ledger:
        ledger.apply([row._replace(status="settled", cost_ns=1)])
    old = STATUS.replace(ID, old_id)
    assert (status_of(gateway, OTHER, old), status_of(gateway, WEB, old)) == ((404, "job_unknown"), (200, None))
    pid = gateway.wait_for_event("process_started", lambda event: event["role"] == "ledger")["pid"]
    os.kill(pid, signal.SIGSTOP)
    until(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED, "a process that stands still in all threads")
    try:
        elsewhere = STATUS.replace(ID, str(uuid.uuid4()))
        assert status_of(gateway, WEB, elsewhere) == (503, "state_unavailable")
        assert (status_of(gateway, WEB), status_of(gateway, OTHER)) == ((200, None), (404, "job_unknown"))
    finally:
        os.kill(pid, signal.SIGCONT)
    until(lambda: status_of(gateway, WEB, elsewhere) == (200, None), "an answer of the ledger process")


HEX = ID.replace("-", "")
OTHER_SPELLINGS = [
    *(f"fal-ai/flux/requests/{ID}{end}" for end in ("%20", "%C2%A0", ";x", "~", ".", ",", "=", "!", "%3B", "%3b1")),
    *(f"fal-ai/flux/requests/{start}{ID}" for start in ("%20", "urn:uuid:", "urn%3Auuid%3A", "~", "-", "0x", "@")),
    *(f"fal-ai/flux/requests/{ID}{end}/status" for end in ("%20", ";x", "~", "-")),
    f"fal-ai/flux/requests/{ID.upper()}",
    f"fal-ai/flux/requests/{ID.title()}/status",
    f"fal-ai/flux/requests/{HEX}",
    f"fal-ai/flux/requests/{HEX.upper()}/status",
    f"fal-ai/flux/requests/{HEX[:16]}-{HEX[16:]}",
    f"fal-ai/flux/requests/{'-'.join(HEX)}",
    f"fal-ai/flux/requests/urn:uuid:{ID}/status",
    f"fal-ai/flux/requests/%7B{ID}%7D",
    f"fal-ai/flux/requests/%7b{HEX}%7d/status",
    f"fal-ai/flux/requests/{ID.replace('-', '%E2%80%90')}",
    f"fal-ai/flux/requests/00000{ID}",
    f"fal-ai/flux/requests/requests/{ID}",
    f"fal-ai/flux/requests/{'0' * 8}/requests/{ID}/status",
    f"fal-ai/flux/Requests/{ID}",
    f"fal-ai/flux/REQUESTS/{ID}/status",
    f"fal-ai/flux/requests;x/{ID}",
    f"fal-ai/flux/requests%20/{ID}",
    f"fal-ai/flux/requests./{ID}",
    f"fal-ai/flux;x/requests/{ID}",
    f"fal-ai/flux/dev/requests/{ID}",
    f"fal-ai/flux/dev/x/requests/{ID}/status",
    f"flux/requests/{ID}",
    f"requests/{ID}/status",
    f"requests/requests/requests/{ID}",
    f"workflows/flux/requests/{ID}",
    f"comfy/requests/{ID}",
    f"workflows/fal-ai/flux/x/requests/{ID}",
]
"""Paths of a job other than its canonical one, which fal might read as the same."""


def test_a_job_is_reached_by_its_canonical_path_only(start_gateway: StartGateway, start_origin: StartOrigin) -> None:
    """Any other spelling, for whoever asks and by whatever method, is 412 before anything is sent."""
    origin = start_origin(answering(queue))
    gateway = start_gateway(origin, policy=policy_text(WEB, OTHER))
    assert status_of(gateway, WEB, SUBMIT, "POST") == (200, None)
    before = len(origin.requests)
    passed = []
    with gateway.connect() as client:
        for path in OTHER_SPELLINGS:
            for key, method in ((OTHER, "GET"), (OTHER, "PUT"), (OTHER, "POST"), (WEB, "GET")):
                response = client.ask(proxy_request(f"https://queue.fal.run/{path}", key=key, method=method))
                if (response.status, response.field("x-fal-error-type")) != (412, "target_invalid"):
                    passed.append((path, key.id, method, response.status))
    assert passed == []
    assert len(origin.requests) == before


@pytest.mark.parametrize("host", ["queue.fal.run", "queue.falrun.com"])
@pytest.mark.parametrize("application", ["fal-ai/flux", "workflows/acme/film", "comfy/acme/film_2", "acme/requests-2"])
@pytest.mark.parametrize("end", ["", "/", "/status", "/status/stream", "/response", "/logs/all"])
def test_canonical_paths_pass_for_the_owner(shared_queue: Gateway, host: str, application: str, end: str) -> None:
    """Namespaces, any owner and alias, and whatever follows the id are fine; a stranger is refused there."""
    target = f"https://{host}/{application}/requests/{ID}{end}"
    assert status_of(shared_queue, WEB, target) == (200, None)
    assert status_of(shared_queue, OTHER, target) == (404, "job_unknown")


def test_without_isolation_any_spelling_passes_as_it_came(
    start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    """`isolate_jobs: none` judges no path, and money goes by the job that is meant."""
    origin = start_origin(answering(queue))
    gateway = start_gateway(origin, policy=policy_text(WEB, OTHER, targets={"isolate_jobs": "none"}))
    target = f"https://queue.fal.run/fal-ai/flux/requests/{ID.upper()}"
    assert status_of(gateway, OTHER, target) == (200, None)
    assert origin.requests[-1].target.decode() == target.removeprefix("https://queue.fal.run")
