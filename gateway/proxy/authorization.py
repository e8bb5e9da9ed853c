"""May this request pass? Cheap and pure questions first, remembered state last; the first refusal wins.

The order: method, credential, duplicates and framing, target, endpoint, content type, declared size.
The credential stands before the target, so that a stranger cannot probe the allow-list.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from gateway.fal.calls import Call, classify, is_canonical_queue_path, may_give_credentials
from gateway.fal.realtime import bounded_token_request
from gateway.http.fields import Fields, first, repeated
from gateway.http.problem import Problem, refusal
from gateway.http.responses import ALLOW, METHODS
from gateway.policy.credential import Principal, identify
from gateway.policy.endpoint import admit_apps, admit_endpoint
from gateway.policy.job import Job, admit_job
from gateway.policy.target import Target, admit_target, parse_target

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.config.ruleset import Ruleset
    from gateway.http.message import RequestHead

LONGEST_TOKEN_REQUEST_BYTES: Final = 65_536
_TARGETS_KEPT: Final = 4096
_LONGEST_KEPT_BYTES: Final = 512  # inputs in a query make a target that does not come again
_SINGLE: Final = (b"x-fal-target-url", b"host", b"content-type", b"content-encoding")
_JSON: Final = b"application/json"

_BAD_METHOD: Final = refusal("method_not_allowed", "Only GET, POST, PUT, DELETE and OPTIONS are served.", (ALLOW,))
_NO_TARGET: Final = refusal("target_missing", "The field x-fal-target-url is missing: it names the URL at fal.")
_NO_UPGRADE: Final = refusal(
    "upgrade_refused",
    "Only HTTP/1.1 is served here: no WebSocket, no other protocol. For realtime, ask rest.fal.ai/tokens/ for a token"
    " and connect to fal with it.",
    ((b"upgrade", b"HTTP/1.1"),),
)
_OF_UPGRADES: Final = frozenset((b"upgrade", b"sec-websocket-key"))
_SAME_REQUEST: Final = frozenset((b"h2c", b"http/2.0", b"http/1.1"))
_NO_HOST: Final = refusal("request_invalid", "An HTTP/1.1 request needs one Host field.")
_BAD_TYPE: Final = refusal("unsupported_media_type", "The content type must be application/json for this target.")
_OTHER_SPELLING: Final = refusal(
    "target_invalid",
    "Paths on the queue are accepted in one spelling only: {owner}/{alias}/requests/{id} with the id in lower case as"
    " fal returned it, or a plain endpoint id.",
)
_OWNER_NOT_KNOWN: Final = refusal(
    "state_unavailable", "It is not known just now who submitted this job; try again.", ((b"retry-after", b"1"),)
)
_OTHER_CREDENTIAL: Final = refusal(
    "target_invalid",
    "Realtime tokens are asked for at https://rest.fal.ai/tokens/ only; no other tokens or keys of fal are given out.",
)
_NO_TOKEN_REQUEST: Final = refusal("request_invalid", "A token request is a POST of plain JSON, not encoded.")
_NO_REALTIME: Final = refusal(
    "realtime_not_budgeted",
    "This key gets no realtime tokens: what they buy at fal is counted in no budget (the policy's realtime.mode).",
)
_LONG_TOKEN_REQUEST: Final = refusal("content_too_large", "A token request is not as long as this one.")


class Admission:
    """What was found out about a request until it was admitted or refused."""

    __slots__ = ("call", "head", "job", "principal", "problem", "target")

    def __init__(self, head: RequestHead) -> None:
        self.head: Final = head
        self.principal: Principal | None = None
        self.target: Target | None = None
        self.call: Call | None = None
        self.job: Job | None = None  # for a job's own calls: what was submitted under its id, where that is known
        self.problem: Problem | None = None

    def refuse(self, problem: Problem) -> Admission:
        """Return itself, refused."""
        self.problem = problem
        return self


class Authorizer:
    """One ruleset, ready to judge; a reload makes a new one."""

    def __init__(self, rules: Ruleset, *, max_body_bytes: int, find_job: Callable[[str], Job | None]) -> None:
        """Take the rules, the largest content that any key may send, and where submitted jobs are remembered."""
        self.max_share: Final = rules.max_share
        self._find_job = find_job
        self._rules = rules
        self._max_body_bytes = max_body_bytes
        self._targets: dict[tuple[str, bytes], tuple[Target | None, Call | None, Problem | None]] = {}

    def admit(self, head: RequestHead, *, now: float) -> Admission:
        """Judge a head; `now` in seconds since the epoch. `problem` is None where it may pass."""
        admission = Admission(head)
        if head.method not in METHODS:
            return admission.refuse(_BAD_METHOD)
        who = self.identify(head, now=now)
        if isinstance(who, Problem):
            return admission.refuse(who)
        admission.principal = who
        problem = self._framing(head) or self._target(head, admission) or self._content(head, admission)
        return admission.refuse(problem) if problem is not None else admission

    def most_bytes(self, principal: Principal) -> int:
        """Return the largest content that this key may send."""
        own = principal.max_body_bytes
        return self._max_body_bytes if own is None else min(own, self._max_body_bytes)

    @staticmethod
    def _framing(head: RequestHead) -> Problem | None:
        names = {name for name, _ in head.fields}
        twice = repeated(head.fields, _SINGLE) if len(names) != len(head.fields) else None
        if twice is not None:
            return refusal("request_invalid", f"The field {twice.decode('latin-1')} stands more than once.")
        if not _OF_UPGRADES.isdisjoint(names) and _wants_another_protocol(head.fields):
            return _NO_UPGRADE
        return None if head.is_http_10 or first(head.fields, b"host") else _NO_HOST

    def _target(self, head: RequestHead, admission: Admission) -> Problem | None:
        text = first(head.fields, b"x-fal-target-url")
        if not text:
            return _NO_TARGET
        known = self._targets.get((head.method, text)) or self._judge(head.method, text)
        admission.target, admission.call, problem = known
        if problem is not None or admission.call is None or admission.principal is None:
            return problem
        if admission.call.job is not None:
            return self._job(admission.call, admission)
        if admission.call.kind == "tokens":
            return _token_problem(head, admission.principal)
        return admit_endpoint(admission.call, admission.principal.endpoints)

    def _job(self, call: Call, admission: Admission) -> Problem | None:
        """Judge a call about a job; where its submit is known, by the endpoint that was submitted to."""
        return self.judge_job(call, self._find_job(call.job) if call.job else None, admission)

    def identify(self, head: RequestHead, *, now: float) -> Principal | Problem:
        """Return whose request it is, or why nobody's."""
        rules = self._rules
        return identify(head.fields, rules.keys_by_digest, now=now, anonymous=rules.anonymous)

    def judge_job(
        self, call: Call, job: Job | None, admission: Admission, *, is_answered: bool = True
    ) -> Problem | None:
        """Judge a call about a job; None: it did not come through here, or (not `is_answered`) that is not known."""
        if not is_answered and self._rules.isolate_jobs != "none":
            return _OWNER_NOT_KNOWN
        principal = admission.principal
        if principal is None:
            raise AssertionError("a job was asked for by nobody")
        admission.job = job
        problem = admit_job(job, principal, isolation=self._rules.isolate_jobs)
        if problem is not None or job is None:
            return problem or admit_endpoint(call, principal.endpoints)
        admission.call = replace(call, endpoint=job.endpoint)
        return admit_endpoint(replace(admission.call, job=None), principal.endpoints)  # its name is known in full

    def _judge(self, method: str, text: bytes) -> tuple[Target | None, Call | None, Problem | None]:
        """Work out what does not depend on the key, and remember it."""
        target = parse_target(text)
        if isinstance(target, Problem):
            return None, None, target
        problem = admit_target(target, self._rules.url_patterns)
        if problem is not None:  # strangers to the list are not worth remembering, nor a label of their own
            return None, None, problem
        call = classify(target.host, target.path, method=method, named=self._rules.named_endpoints)
        if call.kind == "queue" and self._rules.isolate_jobs != "none" and not is_canonical_queue_path(target.path):
            return None, None, _OTHER_SPELLING
        if may_give_credentials(call, target.host, target.path):
            return None, None, _OTHER_CREDENTIAL
        verdict = (target, call, admit_endpoint(call, self._rules.endpoint_globs))
        if len(text) <= _LONGEST_KEPT_BYTES:
            if len(self._targets) >= _TARGETS_KEPT:
                self._targets.clear()
            self._targets[method, text] = verdict
        return verdict

    def _content(self, head: RequestHead, admission: Admission) -> Problem | None:
        if not self._takes_type(head.fields, admission.target, has_content=bool(head.length), method=head.method):
            return _BAD_TYPE
        most = self.most_bytes(admission.principal) if admission.principal else self._max_body_bytes
        return too_large(most) if head.length is not None and head.length > most else None

    def _takes_type(self, fields: Fields, target: Target | None, *, has_content: bool, method: str) -> bool:
        """JSON for whatever carries content; anything for targets listed as binary."""
        named = first(fields, b"content-type")
        if named is None and not has_content:
            return True
        if named is not None and named.partition(b";")[0].strip().lower() == _JSON:
            return True
        if method == "GET" and not has_content:
            return True
        return target is not None and self._rules.binary_patterns.matches(target.url.partition("://")[2])

    def token_content(self, principal: Principal, content: bytes) -> bytes | Problem:
        """Judge the content of a token request; return what is sent in its place."""
        if len(content) > LONGEST_TOKEN_REQUEST_BYTES:
            return _LONG_TOKEN_REQUEST
        request = bounded_token_request(content, max_token_seconds=principal.max_token_seconds)
        if isinstance(request, Problem):
            return request
        problem = admit_apps(request.apps, self._rules.endpoint_globs) or admit_apps(request.apps, principal.endpoints)
        return request.content if problem is None else problem


def _wants_another_protocol(fields: Fields) -> bool:
    """Return whether a request makes sense in another protocol only, and would be bought for nothing in this one.

    An offer of HTTP/2 (`h2c`) is none: the request means the same in HTTP/1.1, where a server may pass over the offer
    (RFC 9110, section 7.8), and Java's HttpClient and `curl --http2` make it by themselves. A WebSocket handshake shows
    also behind a proxy that took `Upgrade` out of it, as nginx does.
    """
    for name, value in fields:
        if name == b"upgrade":
            if not _SAME_REQUEST.issuperset(protocol.strip(b" \t") for protocol in value.lower().split(b",")):
                return True
        elif name == b"sec-websocket-key":
            return True
    return False


def _token_problem(head: RequestHead, principal: Principal) -> Problem | None:
    """Return why a token request is refused whatever it asks for."""
    if not principal.may_open_realtime:
        return _NO_REALTIME
    encoding = first(head.fields, b"content-encoding") or b"identity"
    return None if head.method == "POST" and encoding == b"identity" else _NO_TOKEN_REQUEST


def too_large(most: int) -> Problem:
    """Return the refusal of content beyond `most` bytes."""
    return refusal("content_too_large", f"The content is larger than the {most} bytes that this key may send.")
