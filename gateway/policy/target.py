r"""The target URI: one narrow grammar, one parser, and the list of what may be reached.

The decision it carries: a target is never cleaned, only taken or refused, and what goes on is rebuilt from the parts
that matched, so what was checked is what libcurl sends with PATH_AS_IS, byte for byte.
The one change is libcurl's own, made here first so that it is seen by the check: hexadecimal digits of escapes in the
path become upper-case. The path takes fewer escapes than RFC 3986: none of what an origin could decode into another
path (letters, digits, `.`, `/`, `\`, `%`, controls, over-long UTF-8). `%72equests` must not pass for something else
than `requests`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gateway.http.problem import Problem, refusal

if TYPE_CHECKING:
    from gateway.policy.glob import GlobSet

MAX_TARGET_BYTES: Final = 4096
MAX_HOST_BYTES: Final = 253

DEFAULT_URL_PATTERNS: Final = ("fal.run/**", "queue.fal.run/**", "rest.fal.ai/storage/upload/**", "rest.fal.ai/tokens/")
"""What may be reached where the policy says nothing."""

_LABEL_REST: Final = rb"(?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST: Final = rb"(?:(?!xn--)[a-z0-9]" + _LABEL_REST + rb"\.)+(?!xn--)[a-z]" + _LABEL_REST
_PLAIN: Final = rb"[A-Za-z0-9\-._~!$&'()*+,;=:@]"
_PATH_ESCAPE: Final = (
    rb"%(?:2[0-46-9a-cA-C]|3[a-fA-F]|40|5[bBdDeE]|60|7[b-dB-D]"
    rb"|[89abdABD][0-9a-fA-F]|[cC][2-9a-fA-F]|[eE](?!0%[89])[0-9a-fA-F]|[fF](?!0%8)[0-4])"
)
_DOT_SEGMENT: Final = rb"\.{1,2}(?:[/?;]|%3[bB]|\Z)"
_PATH: Final = rb"(?=/)(?:/(?!" + _DOT_SEGMENT + rb")(?:" + _PLAIN + rb"++|" + _PATH_ESCAPE + rb")++)*+/?+"
_QUERY: Final = rb"\?(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/?]++|%[0-9a-fA-F]{2})*+"
_TARGET: Final = re.compile(rb"https://(" + _HOST + rb")(?::443)?(" + _PATH + rb")((?:" + _QUERY + rb")?)")
_ESCAPE: Final = re.compile(r"%..")


@dataclass(frozen=True, slots=True)
class Target:
    """A target that the grammar accepted; `query` is empty or begins with its `?`, `url` is what the relay gets."""

    host: str
    path: str
    query: str
    url: str


def parse_target(text: bytes) -> Target | Problem:
    """Return the target that the value of `x-fal-target-url` names, or a `target_invalid` problem that says why not."""
    if len(text) > MAX_TARGET_BYTES:
        return _TOO_LONG
    match = _TARGET.fullmatch(text)
    if match is None or match.end(1) - match.start(1) > MAX_HOST_BYTES:
        return _reason(text)
    host, path, query = match[1].decode(), match[2].decode(), match[3].decode()
    if "%" in path:
        path = _ESCAPE.sub(_in_upper_case, path)
    return Target(host, path, query, f"https://{host}{path}{query}")


def admit_target(target: Target, url_patterns: GlobSet) -> Problem | None:
    """Return a `target_not_allowed` problem unless a pattern fits host, path and query together."""
    if url_patterns.matches(target.url[len("https://") :]):
        return None
    return refusal("target_not_allowed", f"This gateway does not forward to that address on {target.host}.")


def _in_upper_case(escape: re.Match[str]) -> str:
    """Return an escape as libcurl writes it in a path (RFC 3986, section 6.2.2.1)."""
    return escape[0].upper()


def _invalid(reason: str) -> Problem:
    """Return the problem of a target that the grammar refuses."""
    return refusal("target_invalid", f"x-fal-target-url {reason}.")


_TOO_LONG: Final = _invalid(f"is longer than {MAX_TARGET_BYTES} bytes")
_AUTHORITY: Final = rb"\Ahttps://[^/?#]*"
_PLAIN_TO_ESCAPE: Final = rb"\Ahttps://[^?%]*(?:" + _PATH_ESCAPE + rb"[^?%]*)*+"
_REASONS: Final = tuple(
    (re.compile(pattern), _invalid(reason))
    for pattern, reason in (
        (rb"\A(?![A-Za-z][A-Za-z0-9+.-]*:)", "is not an absolute URL, as in https://fal.run/fal-ai/flux/dev"),
        (rb"\A(?!https://)", "does not begin with https:// in lower case"),
        (rb"[^\x21-\x7e]", "holds a blank, a control or a non-ASCII character"),
        (rb"\\", "holds a backslash"),
        (rb"#", "has a fragment"),
        (_AUTHORITY + rb"@", "has user information before the host"),
        (_AUTHORITY + rb":(?!443(?:[/?]|\Z))", "has a port other than 443"),
        (rb"\Ahttps://(?!" + _HOST + rb"(?::443)?(?:[/?]|\Z))", "has no plain lower-case DNS name as its host"),
        (_AUTHORITY + rb"(?:\?|\Z)", "has no path"),
        (rb"\Ahttps://[^?]*/(?:\.|%2[eE]){1,2}(?:[/?;]|%3[bB]|\Z)", "has a dot segment in its path"),
        (rb"\Ahttps://[^?]*//", "has an empty segment in its path"),
        (rb"%(?![0-9a-fA-F]{2})", "has a % that two hexadecimal digits do not follow"),
        (_PLAIN_TO_ESCAPE + rb"%", "has an escape in its path that could hide another path"),
    )
)
"""Why the grammar refused, for the developer's eyes only: nothing is admitted by these."""
_UNFIT: Final = _invalid("holds a character that has no place in a URL, or a host name that is too long")


def _reason(text: bytes) -> Problem:
    """Return the problem that names the first mistake of a target; never a part of the target itself."""
    return next((problem for mistake, problem in _REASONS if mistake.search(text)), _UNFIT)
