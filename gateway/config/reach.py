"""Which endpoints the patterns of URLs and the lists of endpoints of a policy let through together.

The decision: a target must match a pattern of URLs, the policy's list of endpoints and the key's, and each of them can
be right by itself while no target matches all. So the globs are compared as globs. What is not certain counts as let
through: queries, and hosts that a pattern may stand for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.fal.calls import NAMESPACES, REST_HOSTS
from gateway.policy.glob import GlobSet, segments_of
from gateway.policy.overlap import overlap

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_ALL: Final = ("**",)

_APPLICATION: Final = 2
_APPLICATION_IN_NAMESPACE: Final = 3
"""Segments of owner and alias, with a namespace in front where there is one."""

_NO_ENDPOINTS: Final = frozenset(("storage", "tokens"))
"""First segments on fal's REST hosts whose targets name no endpoint."""


class Reach:
    """What can be called under a policy's targets, by a caller who may call `own` endpoints (None: all)."""

    def __init__(self, url_patterns: Sequence[str], endpoints: Sequence[str] | None) -> None:
        """Take `targets.allowed_url_patterns` and `targets.allowed_endpoints`, both valid."""
        paths = [path for pattern in url_patterns for path in _endpoint_paths(pattern)]
        hosts = sorted(REST_HOSTS)
        urls = GlobSet(tuple(url_patterns))
        self.names_endpoints: Final = not all(map(_may_name_none, url_patterns))
        self.has_tokens: Final = any(urls.matches(f"{host}/tokens{end}") for host in hosts for end in ("", "/"))
        self.has_uploads: Final = any(
            overlap(pattern, f"{host}/storage/**") for pattern in url_patterns for host in hosts
        )
        self.endpoints: Final = tuple(endpoints) if endpoints is not None else None
        self._paths: Final = paths
        self._path_globs: Final = GlobSet(tuple(paths))
        self._endpoint_globs: Final = GlobSet(self.endpoints or _ALL)
        self._known: dict[tuple[str, ...], bool] = {}

    def has_endpoint(self, own: GlobSet | None) -> bool:
        """Return whether there is an endpoint that can be called, or whose jobs can be."""
        globs = own or GlobSet(_ALL)
        known = self._known.get(globs.patterns)
        if known is None:
            pairs = self._common_pairs(globs)
            known = self._known[globs.patterns] = any(
                overlap(path, *forms) for pair in pairs for forms in _path_forms(*pair) for path in self._paths
            )
        return known

    def has_app(self, own: GlobSet | None) -> bool:
        """Return whether there is an app for which a realtime token can be asked."""
        return any(True for _ in self._common_pairs(own or GlobSet(_ALL)))

    def admits(self, endpoint: str, own: GlobSet | None) -> bool:
        """Return whether this endpoint can be called."""
        is_allowed = self._endpoint_globs.matches(endpoint) and (own is None or own.matches(endpoint))
        return is_allowed and any(map(self._path_globs.matches, (endpoint, f"{endpoint}/stream")))

    def _common_pairs(self, own: GlobSet) -> Iterator[tuple[str, str]]:
        """Yield patterns of the policy's list and of the caller's that one endpoint can match."""
        for theirs in _with_wildcard_or_in(self._endpoint_globs.patterns, own):
            for mine in _with_wildcard_or_in(own.patterns, self._endpoint_globs):
                if overlap(theirs, mine):
                    yield theirs, mine


def _with_wildcard_or_in(patterns: Iterable[str], globs: GlobSet) -> Iterator[str]:
    """Yield patterns that may have something in common with the others: lists of plain names are long."""
    return (pattern for pattern in patterns if "*" in pattern or globs.matches(pattern))


def _endpoint_paths(url_pattern: str) -> Iterator[str]:
    """Yield the pattern of paths that a pattern of URLs leads to, where these name endpoints."""
    host, path = _host_and_path(url_pattern)
    if not (_is_rest(host) and path.partition("/")[0] in _NO_ENDPOINTS):
        yield path


def _may_name_none(url_pattern: str) -> bool:
    """Return whether uploads or tokens may be all that a pattern of URLs is for: `rest.fal.ai/s*/**`, say."""
    host, path = _host_and_path(url_pattern)
    return _is_rest(host) and any(overlap(path, f"{first}/**") for first in _NO_ENDPOINTS)


def _host_and_path(url_pattern: str) -> tuple[str, str]:
    host, _, rest = url_pattern.partition("/")
    return host, rest.partition("?")[0].removesuffix("/") or "**"


def _is_rest(host: str) -> bool:
    return any(map(GlobSet((host,)).matches, REST_HOSTS))


def _path_forms(*endpoints: str) -> Iterator[list[str]]:
    """Yield globs of the paths that calls of an endpoint have, one form after another: run or submit, stream, job."""
    yield list(endpoints)
    yield [f"{endpoint}/stream" for endpoint in endpoints]
    for length in (_APPLICATION, _APPLICATION_IN_NAMESPACE):
        applications = [_application(endpoint, length) for endpoint in endpoints]
        if None not in applications:
            yield [f"{application}/requests/*/**" for application in applications]


def _application(endpoint: str, length: int) -> str | None:
    """Return a glob of owner and alias of a glob of endpoints, `length` segments; None where it has none such."""
    segments = segments_of(endpoint)[:length]
    if "**" in segments:
        before = segments[: segments.index("**")]
        segments = [*before, *["*"] * (length - len(before))]
    needed = _APPLICATION_IN_NAMESPACE if segments[0] in NAMESPACES else _APPLICATION
    fits = len(segments) == length and (needed == length or "*" in segments[0])
    return "/".join(segments) if fits else None
