"""What a fal URL means, and what a token request asks for."""

from __future__ import annotations

import json
import re
from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.fal.calls import (
    Call,
    allowed_apps,
    application_of,
    canonical_job_id,
    classify,
    endpoint_of,
    is_canonical_queue_path,
    is_plain_endpoint,
)
from gateway.http.problem import Problem

JOB = "764cabcf-b745-4b3e-ae38-1200304cf45b"

CALLS = [
    ("POST https://fal.run/fal-ai/flux/dev", Call("run", "paid", "fal-ai/flux/dev", None, "run")),
    ("GET https://fal.run/fal-ai/flux/dev", Call("run", "paid", "fal-ai/flux/dev", None, "run")),
    ("POST https://fal.run/fal-ai/flux/dev/stream", Call("run", "paid", "fal-ai/flux/dev", None, "run")),
    ("POST https://fal.run/fal-ai/flux/dev/", Call("run", "paid", "fal-ai/flux/dev", None, "run")),
    ("POST https://fal.run/fal-ai/flux/dev/stream/", Call("run", "paid", "fal-ai/flux/dev", None, "run")),
    ("POST https://falrun.com/fal-ai/flux/dev/", Call("run", "paid", "fal-ai/flux/dev", None, "run")),
    ("POST https://queue.fal.run/fal-ai/flux/dev/", Call("queue", "paid", "fal-ai/flux/dev", None, "submit")),
    ("POST https://eu.fal.run/fal-ai/flux/dev/stream/", Call("other", "paid", "fal-ai/flux/dev", None, "other")),
    ("GET https://queue.falrun.com/a/b/requests/J", Call("queue", "free", "a/b", JOB, "result")),
    ("POST https://rest.alpha.fal.ai/tokens/", Call("tokens", "free", "tokens/", None, "other")),
    ("POST https://fal.run/fal-ai/flux/stream", Call("run", "paid", "fal-ai/flux", None, "run")),
    ("POST https://fal.run/fal-ai/stream", Call("run", "paid", "fal-ai/stream", None, "run")),
    ("POST https://fal.run/workflows/me/stream", Call("run", "paid", "workflows/me/stream", None, "run")),
    ("POST https://fal.run/workflows/me/flow/stream", Call("run", "paid", "workflows/me/flow", None, "run")),
    ("POST https://fal.run/a/b/requests/1", Call("run", "paid", "a/b/requests/1", None, "run")),
    ("POST https://fal.run/", Call("run", "paid", "", None, "run")),
    ("POST https://queue.fal.run/fal-ai/flux/dev", Call("queue", "paid", "fal-ai/flux/dev", None, "submit")),
    ("GET https://queue.fal.run/fal-ai/flux/dev", Call("queue", "paid", "fal-ai/flux/dev", None, "submit")),
    ("POST https://queue.fal.run/fal-ai/flux/dev/stream", Call("queue", "paid", "fal-ai/flux/dev", None, "submit")),
    ("POST https://queue.fal.run/requests/a/b", Call("queue", "paid", "requests/a/b", None, "submit")),
    ("POST https://queue.fal.run/a/requests/b", Call("queue", "paid", "a/requests/b", None, "submit")),
    ("POST https://queue.fal.run/a/b/requests", Call("queue", "paid", "a/b/requests", None, "submit")),
    ("POST https://queue.fal.run/a/b/requests/", Call("queue", "paid", "a/b/requests", None, "submit")),
    ("POST https://queue.fal.run/a/b/c/requests/1", Call("queue", "paid", "a/b/c/requests/1", None, "submit")),
    (
        "POST https://queue.fal.run/workflows/a/requests/1",
        Call("queue", "paid", "workflows/a/requests/1", None, "submit"),
    ),
    ("GET https://queue.fal.run/a/b/requests/J", Call("queue", "free", "a/b", JOB, "result")),
    ("GET https://queue.fal.run/a/b/requests/J/", Call("queue", "free", "a/b", JOB, "result")),
    ("GET https://queue.fal.run/a/b/requests/J/status", Call("queue", "free", "a/b", JOB, "status")),
    ("GET https://queue.fal.run/a/b/requests/J/status/stream", Call("queue", "free", "a/b", JOB, "status_stream")),
    ("PUT https://queue.fal.run/a/b/requests/J/cancel", Call("queue", "free", "a/b", JOB, "cancel")),
    ("GET https://queue.fal.run/a/b/requests/J/cancel", Call("queue", "free", "a/b", JOB, "other")),
    ("POST https://queue.fal.run/a/b/requests/J", Call("queue", "free", "a/b", JOB, "other")),
    ("GET https://queue.fal.run/a/b/requests/J/logs/x", Call("queue", "free", "a/b", JOB, "other")),
    ("GET https://queue.fal.run/a/b/c/requests/J/status", Call("queue", "free", "a/b/c", JOB, "status")),
    ("GET https://queue.fal.run/workflows/a/b/requests/J", Call("queue", "free", "workflows/a/b", JOB, "result")),
    ("PUT https://queue.fal.run/comfy/a/b/requests/J/cancel", Call("queue", "free", "comfy/a/b", JOB, "cancel")),
    ("GET https://queue.fal.run/a/b/requests/requests/J", Call("queue", "free", "a/b", "requests", "other")),
    (
        "POST https://rest.fal.ai/storage/upload/initiate",
        Call("storage", "free", "storage/upload/initiate", None, "other"),
    ),
    ("POST https://rest.fal.ai/tokens/", Call("tokens", "free", "tokens/", None, "other")),
    ("POST https://rest.fal.ai/tokens", Call("tokens", "free", "tokens", None, "other")),
    ("POST https://rest.fal.ai/storages/x", Call("other", "paid", "storages/x", None, "other")),
    ("POST https://rest.fal.ai/tokens/x", Call("other", "paid", "tokens/x", None, "other")),
    ("GET https://api.fal.ai/v1/models/pricing", Call("other", "paid", "v1/models/pricing", None, "other")),
    ("GET https://example.com/a/b/requests/J", Call("other", "paid", f"a/b/requests/{JOB}", None, "other")),
]


@pytest.mark.parametrize(("request_line", "call"), CALLS)
def test_a_request_is_classified(request_line: str, call: Call) -> None:
    """Only a job's own calls, storage and tokens are free; what is not known is paid."""
    method, _, url = request_line.replace("/J", f"/{JOB}").partition(" https://")
    host, slash, path = url.partition("/")
    assert classify(host, slash + path, method=method) == call


def test_a_named_endpoint_keeps_its_last_segment() -> None:
    """`stream` stays where the policy names or prices the full path."""
    assert endpoint_of("/a/b/stream", {"a/b/stream"}) == "a/b/stream"
    assert endpoint_of("/a/b/stream", {"a/b"}) == "a/b"
    assert classify("fal.run", "/a/b/stream", method="POST", named={"a/b/stream"}).endpoint == "a/b/stream"
    assert classify("queue.fal.run", "/a/b/stream", method="POST", named={"a/b/stream"}).endpoint == "a/b/stream"


@pytest.mark.parametrize(
    ("endpoint", "application"),
    [
        ("fal-ai/flux/dev", "fal-ai/flux"),
        ("fal-ai/flux", "fal-ai/flux"),
        ("workflows/me/flow/x", "workflows/me/flow"),
        ("comfy/me/flow", "comfy/me/flow"),
        ("fal-ai", "fal-ai"),
        ("", ""),
    ],
)
def test_an_application_is_owner_and_alias(endpoint: str, application: str) -> None:
    """The path behind owner and alias is dropped, and a namespace takes one segment more."""
    assert application_of(endpoint) == application


@given(st.lists(st.text("ab/.", min_size=1, max_size=4), max_size=6), st.sampled_from(["GET", "POST", "PUT", "DELETE"]))
def test_any_path_has_one_class(segments: list[str], method: str) -> None:
    """No path raises, and a call is free exactly if it belongs to a job, on the queue."""
    call = classify("queue.fal.run", "/" + "/".join([*segments, "requests", "1"]), method=method)
    assert (call.billing == "free") == (call.job is not None)


@pytest.mark.parametrize(
    "spelling",
    [JOB.upper(), JOB.replace("-", ""), f"urn:uuid:{JOB}", f"%7B{JOB}%7d", f"{{{JOB}}}", f"UUID:{JOB.title()}"],
)
def test_a_job_is_looked_up_by_its_canonical_id(spelling: str) -> None:
    """However a UUID is written, it is one job; any other id is what it is."""
    assert canonical_job_id(spelling) == JOB
    assert classify("queue.fal.run", f"/a/b/requests/{spelling}/status", method="GET").job == JOB
    assert [canonical_job_id(text) for text in ("", "Job-1", JOB + "x")] == ["", "Job-1", JOB + "x"]


_SPELLED = [
    JOB,
    JOB.upper(),
    JOB[:18],
    JOB[18:],
    JOB.replace("-", ""),
    "urn:uuid:",
    "%7B",
    "%7D",
    "%20",
    ";x",
    "~",
    "-",
]
_AROUND = ["/", "/requests/", "/Requests/", ".", "0", "fal-ai", "flux", "workflows", "comfy", "/fal-ai/flux/requests/"]
_PIECES = st.sampled_from([*_SPELLED, *_AROUND])


@given(st.lists(_PIECES, min_size=1, max_size=8))
@example(["/fal-ai/flux/requests/", JOB])
def test_no_canonical_path_hides_a_job(pieces: list[str]) -> None:
    """Where the digits of an id are in an accepted path, one after the other, the job is found by that id.

    So much a server would have to see in a path to mean this job by it: letters of either case, escapes decoded, and
    whatever is no digit left out.
    """
    path = "/" + "".join(pieces).removeprefix("/")
    seen = re.sub(r"[^0-9a-f/]", "", unquote(path).lower())
    if JOB.replace("-", "") in seen and "requests" in path.lower() and is_canonical_queue_path(path):
        call = classify("queue.fal.run", path, method="GET")
        assert call.job == JOB or JOB.replace("-", "") not in re.sub(r"[^0-9a-f]", "", call.job or path)


@pytest.mark.parametrize(
    ("endpoint", "is_plain"),
    [("fal-ai/flux/dev", True), ("a", True), ("A_b/c-d/v1.1", True), ("a/b-", True)]
    + [(f"fal-ai/flux/dev{end}", False) for end in ("/", ";x", "%20", "~", ".", ",", "%3B", "//", "/.", "/..", ":")]
    + [("", False), ("/a", False), ("a//b", False), ("a/%62", False), (".a/b", False)],
)
def test_plain_endpoints_have_one_spelling(endpoint: str, *, is_plain: bool) -> None:
    """No escape, no parameter, nothing at an end that a server may drop."""
    assert is_plain_endpoint(endpoint) == is_plain


def test_the_apps_of_a_token_request_are_read() -> None:
    """What the clients send gives the list, whatever else stands beside it."""
    assert allowed_apps(b'{"allowed_apps": ["flux"], "token_expiration": 120}') == ("flux",)
    assert allowed_apps('{"allowed_apps": ["a/b", "ü"]}'.encode()) == ("a/b", "ü")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b'"flux"',
        b"{}",
        b'{"allowed_apps": null}',
        b'{"allowed_apps": "flux"}',
        b'{"allowed_apps": []}',
        b'{"allowed_apps": ["flux", 1]}',
        b'{"allowed_apps": [["flux"]]}',
        b'{"Allowed_Apps": ["flux"]}',
        b'{"allowed_apps": ["flux"]',
        b'{"allowed_apps": ["flux"],}',
        b'{"allowed_apps": ["flux"]} {}',
        b'{"allowed_apps": ["flux"], "allowed_apps": ["other"]}',
        b'{"allowed_apps": ["flux"], "allowed\\u005fapps": ["other"]}',
        b'{"allowed_apps": ["flux"], "x": {"y": 1, "y": 2}}',
        b'{"allowed_apps": ["flux"], "x": NaN}',
        b'{"allowed_apps": ["flux"], "x": -Infinity}',
        b"{'allowed_apps': ['flux']}",
        b'\xef\xbb\xbf{"allowed_apps": ["flux"]}',
        '{"allowed_apps": ["flux"]}'.encode("utf-16"),
        '{"allowed_apps": ["flux"]}'.encode("utf-32-le"),
        b'{"allowed_apps": ["fl\xffux"]}',
        b'{"allowed_apps": ["fl\nux"]}',
        b'{"allowed_apps": ["flux"], "x": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        b'{"allowed_apps": ["flux"], "x": ' + b"1" * 5000 + b"}",
    ],
)
def test_a_token_request_with_two_readings_is_refused(content: bytes) -> None:
    """What is not strict JSON with one list of names is a 400, so that the origin reads the list that was checked."""
    problem = allowed_apps(content)
    assert isinstance(problem, Problem)
    assert (problem.status, problem.error_type) == (400, "request_invalid")


@given(st.binary(max_size=60) | st.text(max_size=30).map(lambda text: json.dumps({"allowed_apps": [text]}).encode()))
def test_any_content_gets_an_answer(content: bytes) -> None:
    """No content raises: the answer is a list of names or a problem."""
    assert isinstance(allowed_apps(content), tuple | Problem)
