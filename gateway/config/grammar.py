"""The texts and numbers that stand in a policy file: grammars, durations, amounts, moments, each judged by itself.

Decided here: a message says in words what a value should be and never quotes it, and an amount of money is exact or an
error. Each type brings what an editor is told of it (`document.schema_text`), and what a worker is sent of it.
"""

from __future__ import annotations

import re
from datetime import datetime
from decimal import Decimal
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WithJsonSchema

from gateway.http.problem import Problem
from gateway.policy.glob import compile_globs
from gateway.policy.target import parse_target

if TYPE_CHECKING:
    from collections.abc import Callable

_RESERVED: Final = frozenset(("anonymous", "unknown"))
_DNS: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DURATION: Final = r"([0-9]{1,12}(?:\.[0-9]{1,6})?)(ms|s|m|h|d)"
_AMOUNT: Final = r"[0-9]{1,12}(?:\.[0-9]{1,12})?"
_IDENTIFIER: Final = r"[a-z0-9][a-z0-9._-]{0,62}"
_LIMIT_NAME: Final = r"[A-Za-z][A-Za-z0-9._-]{0,62}"
_DIGEST: Final = r"sha256:[0-9a-fA-F]{64}"
_ORIGIN: Final = rf"[a-z][a-z0-9+.-]*://(?:{_DNS}(?:\.{_DNS})*|\[[0-9a-f:]+\])(?::[1-9][0-9]{{0,4}})?"
_URL_PATTERN: Final = rf"(?:\*\.)?{_DNS}(?:\.{_DNS})+/.*"
_ENDPOINT: Final = r"[A-Za-z0-9][A-Za-z0-9._~-]*(?:/[A-Za-z0-9._~-]+)*"
_USER_INFO: Final = r"(?:[A-Za-z0-9._~!$&'()*+,;=:-]|%[0-9A-Fa-f]{2})*"
_WEB_HOST: Final = r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])"
# Without a user, an @ in the path of a host with a port is more likely the end of a password with a raw slash.
_WEB_URL: Final = (
    rf"https?://(?:{_USER_INFO}@{_WEB_HOST}(?::[0-9]{{1,5}})?(?:[/?][!-~]*)?|{_WEB_HOST}(?:[/?][!-~]*)?"
    rf"|{_WEB_HOST}:[0-9]{{1,5}}(?:[/?][!-?A-~]*)?)"
)
_ENV_NAME: Final = r"[A-Za-z_][A-Za-z0-9_]*"
_UNIT: Final = r"[A-Za-z0-9][A-Za-z0-9 ._/-]{0,62}"
_SECONDS_OF: Final = MappingProxyType({"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0})
_LARGEST_INTEGER: Final = 999_999_999_999_999  # RFC 9651 section 3.3.1: what a RateLimit field can carry
_DEFAULT_PORT: Final = MappingProxyType({"http": ":80", "https": ":443"})


def _in(pattern: str, words: str) -> Callable[[str], str]:
    """Return a check that a text is in a grammar as a whole; its message is in words."""
    grammar = re.compile(pattern, re.DOTALL)

    def check(text: str) -> str:
        if not grammar.fullmatch(text):
            raise ValueError(words)
        return text

    return check


def _text(pattern: str) -> WithJsonSchema:
    """Return what an editor is told of such a text."""
    return WithJsonSchema({"type": "string", "pattern": f"^(?:{pattern})$"})


_in_identifiers: Final = _in(
    _IDENTIFIER, "should be 1 to 63 of a-z, 0-9, dot, hyphen, underscore, and begin with a letter or digit"
)
_in_limit_names: Final = _in(_LIMIT_NAME, "should be letters, digits, dot, hyphen, underscore, and begin with a letter")
_in_digests: Final = _in(_DIGEST, "should read sha256: and the 64 hex digits of the whole key")
_in_endpoints: Final = _in(_ENDPOINT, "should be an endpoint id, without wildcards")
_in_env_names: Final = _in(_ENV_NAME, "should be the name of an environment variable")
_in_units: Final = _in(_UNIT, "should be a short plain name")
_in_web_urls: Final = _in(
    _WEB_URL,
    "should be an http or https URL, in a user's name or password @ / ? # and % are %40 %2F %3F %23 and %25",
)
_in_cors_origins: Final = _in(_ORIGIN, "should be exactly scheme://host[:port] in lower case, no path, no wildcard")
_in_url_patterns: Final = _in(
    _URL_PATTERN,
    "should be host/path, no scheme or port, the host in lower case, a wildcard only as its first label (*.fal.run/**)",
)


def identifier(text: str) -> str:
    """Return the id of a team or key; ValueError outside the grammar, or a name that metrics keep for themselves."""
    if text in _RESERVED:
        raise ValueError(f"{text!r} is reserved for callers without a key of their own")
    return _in_identifiers(text)


def _duration(value: object) -> float:
    """Return seconds, out of a number or of a text like `60s`, `5m`, `24h`."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _LARGEST_INTEGER:
        return float(value)
    found = re.fullmatch(_DURATION, value) if isinstance(value, str) else None
    if not found:
        raise ValueError("should be a number of seconds, or like 500ms, 60s, 5m, 24h, 7d")
    return float(found[1]) * _SECONDS_OF[found[2]]


def _whole_seconds(value: float) -> float:
    if not value.is_integer():
        raise ValueError("should be whole seconds: RateLimit-Policy has no finer window")
    return value


def _amount(value: object) -> Decimal:
    """Return an exact number; a YAML float has lost its digits before it comes here, so it is refused."""
    if isinstance(value, float):
        raise ValueError(f'put the number in quotes ("{value}"): floats are not exact')  # noqa: TRY004 (pydantic's way)
    whole = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST_INTEGER
    if not whole and not (isinstance(value, str) and re.fullmatch(_AMOUNT, value)):
        raise ValueError('should be a decimal number in quotes, like "0.025", not negative')
    return Decimal(str(value))


def _moment(value: object) -> datetime:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        moment = None
    if not isinstance(moment, datetime):
        raise ValueError("should be a date with time and zone, like 2027-01-01T00:00:00Z")  # noqa: TRY004 (as above)
    if moment.tzinfo is None:
        raise ValueError("has no time zone: add Z, or an offset like +01:00")
    return moment


def _cors_origin(text: str) -> str:
    scheme, _, place = _in_cors_origins(text).partition("://")
    if place.endswith(_DEFAULT_PORT.get(scheme, " ")):
        raise ValueError(f"a browser leaves out {_DEFAULT_PORT[scheme]} with {scheme}")
    return text


def _exact(amount: Decimal) -> int | str:
    """Return an amount as `_amount` takes it: `1E-9` is how Python writes a nano-dollar, and no policy does."""
    return int(amount) if amount == amount.to_integral_value() else format(amount, "f")


def _glob(text: str) -> str:
    compile_globs([text])
    return text


def _matching_url(pattern: str) -> str:
    """Return a pattern of URLs, if there is a target that it fits: one with each wildcard filled in."""
    example = "https://" + pattern.replace("*", "a")
    target = parse_target(example.encode())
    if isinstance(target, Problem):
        raise ValueError(f"matches no target: one of this form {_reason_in(target)}")  # noqa: TRY004 (as above)
    if target.url != example:
        raise ValueError("matches no target: write hexadecimal digits of escapes in upper case")
    return pattern


def _matching_endpoint(pattern: str) -> str:
    """Return a pattern of endpoint ids, if there is an endpoint id that it fits."""
    if re.match(r"(?:[A-Za-z0-9*-]+\.)*fal(?:run)?\.(?:run|ai|com)(?:/|\Z)", pattern):
        raise ValueError("begins with a host; an endpoint id is a path, as in fal-ai/flux/dev")
    if pattern.endswith("/"):
        raise ValueError("ends with a slash, and no endpoint id does")
    target = parse_target(f"https://fal.run/{pattern.replace('*', 'a')}".encode())
    if isinstance(target, Problem):
        raise ValueError(f"matches no endpoint id: a path of this form {_reason_in(target)}")  # noqa: TRY004 (as above)
    if target.query or "?" in pattern:
        raise ValueError("has a ?, and no endpoint id does; * is any run of characters within one segment")
    return pattern


def _reason_in(problem: Problem) -> str:
    return problem.detail.removeprefix("x-fal-target-url ").removesuffix(".")


Duration = Annotated[
    float,
    BeforeValidator(_duration),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": f"^{_DURATION}$"}]}),
]
Window = Annotated[Duration, Field(gt=0, le=366 * 86_400), AfterValidator(_whole_seconds)]
Amount = Annotated[
    Decimal,
    BeforeValidator(_amount),
    PlainSerializer(_exact, when_used="json"),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": f"^{_AMOUNT}$"}, {"type": "integer", "minimum": 0}]}),
]
Moment = Annotated[datetime, BeforeValidator(_moment), WithJsonSchema({"type": "string", "format": "date-time"})]
Identifier = Annotated[str, AfterValidator(identifier), _text(_IDENTIFIER)]
LimitName = Annotated[str, AfterValidator(_in_limit_names), _text(_LIMIT_NAME)]
Digest = Annotated[str, AfterValidator(_in_digests), _text(_DIGEST)]
CorsOrigin = Annotated[str, AfterValidator(_cors_origin), _text(_ORIGIN)]
UrlPattern = Annotated[
    str, AfterValidator(_in_url_patterns), AfterValidator(_glob), AfterValidator(_matching_url), _text(_URL_PATTERN)
]
EndpointGlob = Annotated[str, AfterValidator(_glob), AfterValidator(_matching_endpoint)]
EndpointId = Annotated[str, Field(max_length=256), AfterValidator(_in_endpoints), _text(_ENDPOINT)]
EnvName = Annotated[str, AfterValidator(_in_env_names), _text(_ENV_NAME)]
UnitName = Annotated[str, AfterValidator(_in_units), _text(_UNIT)]
WebUrl = Annotated[str, AfterValidator(_in_web_urls)]
Quota = Annotated[int, Field(ge=1, le=_LARGEST_INTEGER)]
