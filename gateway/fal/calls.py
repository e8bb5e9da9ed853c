"""What a fal URL means: which service, whether it costs money, which endpoint, and which step of a job.

The decision it carries: a request is free only where its path is known to be free; everything else is paid, so an
unknown path costs a reservation and never a gift. On the queue a job's own paths are told from
a submit by the place of `requests`: straight behind owner and alias it is fal's own word, whatever the method; deeper
down it may belong to a model's path, so a POST there counts as a submit, and is paid.

fal does not document which spellings of a path it reads as the same one. So where it matters who owns a job, or
what a call costs, only a canonical spelling is accepted (`is_canonical_queue_path`, `is_plain_endpoint`); a request is
never judged by a cleaned path while another one is sent.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn

from gateway.http.problem import Problem, refusal

if TYPE_CHECKING:
    from collections.abc import Container

Kind = Literal["run", "queue", "storage", "tokens", "other"]
Billing = Literal["paid", "free"]
Action = Literal["run", "submit", "status", "status_stream", "result", "cancel", "other"]

RUN_HOSTS: Final = frozenset({"fal.run", "falrun.com"})
QUEUE_HOSTS: Final = frozenset({"queue.fal.run", "queue.falrun.com"})
REST_HOSTS: Final = frozenset({"rest.fal.ai", "rest.alpha.fal.ai"})
"""Each service's host, and the second name under which fal serves it too."""

NAMESPACES: Final = frozenset({"workflows", "comfy"})
"""First segments that put one more segment before owner and alias."""

_JOB_ACTIONS: Final = MappingProxyType[tuple[str, str], Action](
    {
        ("GET", ""): "result",
        ("GET", "status"): "status",
        ("GET", "status/stream"): "status_stream",
        ("PUT", "cancel"): "cancel",
    }
)
"""What a method and the path behind the request id mean."""

_NO_REQUESTS: Final = r"(?!(?i:requests)[._-]*(?:/|\Z))"
_SEGMENT: Final = _NO_REQUESTS + r"[A-Za-z0-9_][A-Za-z0-9._-]*"
_JOB_PATH: Final = re.compile(
    rf"/(?:(?:workflows|comfy)/{_SEGMENT}|(?!(?:workflows|comfy)/){_SEGMENT})/{_SEGMENT}"
    rf"/requests/({_NO_REQUESTS}[a-z0-9-]{{1,128}})(?:/{_SEGMENT})*/?"
)
_SUBMIT_PATH: Final = re.compile(rf"/{_SEGMENT}(?:/{_SEGMENT})*/?")
_PLAIN_ENDPOINT: Final = re.compile(r"\w(?:[\w.-]*[\w-])?(?:/\w(?:[\w.-]*[\w-])?)*", re.ASCII)

_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_UUID_DIGITS: Final = re.compile(r"[0-9a-f]{32}")
_UUID_DIGIT_COUNT: Final = 32
_UUID_GROUPS: Final = re.compile(r"[0-9a-f]+(?:-[0-9a-f]+){4}")
"""Five groups of digits, which some readers of UUIDs fill up with zeros, or cut."""
_AROUND_DIGITS: Final = re.compile(r"urn:|uuid:|%7b|%7d|[{}-]")
"""What readers of UUIDs take as decoration."""

_CREDENTIALS: Final = re.compile(r"(?<![a-z0-9])(?:tokens?|keys?)(?![a-z0-9])|\A/tokens", re.IGNORECASE)
"""Words of a path below which tokens and keys are given out."""

_NOTHING_NAMED: Final[frozenset[str]] = frozenset()


@dataclass(frozen=True, slots=True)
class Call:
    """One request in fal's words; `endpoint` of a job's own calls is owner/alias as its URL says."""

    kind: Kind
    billing: Billing
    endpoint: str
    job: str | None
    action: Action


def classify(host: str, path: str, *, method: str, named: Container[str] = _NOTHING_NAMED) -> Call:
    """Return what a request to `https://host/path` is: host and path as the target grammar leaves them.

    `named` holds the endpoints that the policy names or prices; see `endpoint_of`.
    """
    if host in RUN_HOSTS:
        return Call("run", "paid", endpoint_of(path, named), None, "run")
    if host in QUEUE_HOSTS:
        return _queue_call(path, method, named)
    if host in REST_HOSTS and path.startswith("/storage/"):
        return Call("storage", "free", path[1:], None, "other")
    if host in REST_HOSTS and path in {"/tokens", "/tokens/"}:
        return Call("tokens", "free", path[1:], None, "other")
    return Call("other", "paid", endpoint_of(path, named), None, "other")


def _queue_call(path: str, method: str, named: Container[str]) -> Call:
    """Return the submit, or the step of a job, that a path on the queue's host is."""
    segments = path[1:].split("/")
    place = _place_of_requests(segments, method)
    if place == 0:
        return Call("queue", "paid", endpoint_of(path, named), None, "submit")
    below = "/".join(segments[place + 2 :]).removesuffix("/")
    action = _JOB_ACTIONS.get((method, below), "other")
    return Call("queue", "free", "/".join(segments[:place]), canonical_job_id(segments[place + 1]), action)


def _place_of_requests(segments: list[str], method: str) -> int:
    """Return the index of the `requests` that stands before a request id, or 0 where the path is no job's."""
    first = _application_length(segments)
    try:
        place = segments.index("requests", first)
    except ValueError:
        return 0
    named_job = place + 1 < len(segments) and segments[place + 1] != ""
    return place if named_job and (place == first or method != "POST") else 0


def endpoint_of(path: str, named: Container[str] = _NOTHING_NAMED) -> str:
    """Return the endpoint id of a run or submit path.

    It has no slash at its end. A last segment `stream` is how the clients ask for events, and is taken off, unless
    `named` holds the full path or nothing but owner and alias would be cut into.
    """
    endpoint = path[1:].removesuffix("/")
    if not endpoint.endswith("/stream") or endpoint in named:
        return endpoint
    segments = endpoint.split("/")
    return endpoint[: -len("/stream")] if len(segments) > _application_length(segments) else endpoint


def is_plain_endpoint(endpoint: str) -> bool:
    """Return whether an endpoint id has one spelling only: no escape, no parameter, nothing that a server may drop."""
    return _PLAIN_ENDPOINT.fullmatch(endpoint) is not None


def canonical_job_id(text: str) -> str:
    """Return the request id by which a job is looked up: a UUID in lower case with hyphens, any other id as it is."""
    if _UUID.fullmatch(text):
        return text
    digits = _AROUND_DIGITS.sub("", text.lower())
    if _UUID_DIGITS.fullmatch(digits) is None:
        return text
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def is_canonical_queue_path(path: str) -> bool:
    """Return whether a path on the queue's host can be read in one way only, as a submit or as a job's call.

    A job's path is owner and alias, `requests`, and the request id in lower case, a UUID with its hyphens. `requests`
    has no other place in a path, whatever its case.
    """
    job = _JOB_PATH.fullmatch(path)
    if job is None:
        return _SUBMIT_PATH.fullmatch(path) is not None
    return _UUID.fullmatch(job[1]) is not None or not _is_like_uuid(job[1])


def _is_like_uuid(job_id: str) -> bool:
    """Return whether a reader of UUIDs that takes more than the canonical form might take this."""
    bare = job_id.replace("-", "")
    has_digits = len(bare) == _UUID_DIGIT_COUNT or _UUID_DIGITS.search(bare) is not None
    return has_digits or _UUID_GROUPS.fullmatch(job_id) is not None


def application_of(endpoint: str) -> str:
    """Return owner/alias of an endpoint id, a namespace in front where it has one: all that a job's URL tells."""
    segments = endpoint.split("/")
    return "/".join(segments[: _application_length(segments)])


def _application_length(segments: list[str]) -> int:
    """Return how many segments owner and alias take, a namespace included."""
    return 3 if segments[0] in NAMESPACES else 2


def may_give_credentials(call: Call, host: str, path: str) -> bool:
    """Return whether the answer may be a token or a key for fal, asked for on a path that is not judged as such.

    Any word of a path counts, in any case, since fal has more such paths than are known (`/tokens/realtime` beside
    `/tokens/`, `/v1/keys` on api.fal.ai). Below fal.run applications choose the words.
    """
    if call.kind != "other" or host.endswith((".fal.run", ".falrun.com")):
        return False
    return _CREDENTIALS.search(path) is not None


def allowed_apps(content: bytes) -> tuple[str, ...] | Problem:
    """Return the apps that a token request asks for, or a `request_invalid` problem; see `read_token_request`."""
    document = read_token_request(content)
    return document if isinstance(document, Problem) else tuple(document["allowed_apps"])


def read_token_request(content: bytes) -> dict[str, Any] | Problem:
    """Return a token request as it reads, with a list of names as `allowed_apps`, or a `request_invalid` problem.

    The content is that of `POST /tokens/`: `{"allowed_apps": ["flux"], "token_expiration": 120}`; the
    caller bounds its length. Only what every JSON reader must read alike is taken: UTF-8, no name twice, no NaN. Else
    the origin might read another list than the one that was checked.
    """
    try:
        document = json.loads(content.decode(), object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):  # The second is what thousands of brackets come to.
        return _BAD_JSON
    apps = document.get("allowed_apps") if isinstance(document, dict) else None
    if not isinstance(apps, list) or not apps or not all(isinstance(app, str) for app in apps):
        return _BAD_APPS
    return {str(name): value for name, value in document.items()}


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return the pairs as an object; ValueError where a name comes twice."""
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a name comes twice")
    return document


def _refuse_constant(name: str) -> NoReturn:
    """Raise ValueError for NaN and Infinity, which are no JSON (RFC 8259, section 6)."""
    raise ValueError(name)


_BAD_JSON: Final = refusal("request_invalid", "The token request is not plain JSON: UTF-8, no name twice, no NaN.")
_BAD_APPS: Final = refusal("request_invalid", "The token request needs allowed_apps: a list of at least one app name.")
