"""The target grammar and the allow-list: what is taken, what is refused, and why the developer is told so."""

from __future__ import annotations

import re
import time
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.http.problem import Problem
from gateway.policy.glob import compile_globs
from gateway.policy.target import DEFAULT_URL_PATTERNS, Target, admit_target, parse_target
from tests.policy.targets import GOOD, INVALID, NOT_ALLOWED, RUN

DEFAULT = compile_globs(DEFAULT_URL_PATTERNS)

REASONS = [
    (b"fal-ai/flux", "not an absolute URL"),
    (b"http://fal.run/a", "does not begin with https://"),
    (b"https://fal.run/a b", "blank"),
    (b"https://fal.run\\@evil.com/", "backslash"),
    (b"https://u:p@fal.run/a", "user information"),
    (b"https://fal.run:8443/a", "port other than 443"),
    (b"https://127.0.0.1/a", "DNS name"),
    (b"https://fal.run", "no path"),
    (b"https://fal.run/a/%2e%2e/b", "dot segment"),
    (b"https://fal.run/a//b", "empty segment"),
    (b"https://fal.run/a%zz", "two hexadecimal digits"),
    (b"https://fal.run/a%2fb", "escape in its path"),
    (b"https://fal.run/a#b", "fragment"),
    (b"https://fal.run/a|b", "no place in a URL"),
    (b"https://fal.run/" + b"a" * 5000, "longer than 4096 bytes"),
]


def error_of(text: bytes) -> str:
    """Return the error type that a target text ends in, or an empty text where it is admitted."""
    target = parse_target(text)
    problem = target if isinstance(target, Problem) else admit_target(target, DEFAULT)
    assert problem is None or problem.status == 412
    return "" if problem is None else problem.error_type


def test_the_tables_of_hostile_targets_are_long_enough() -> None:
    """At least 120 different hostile targets are tried, and none of them twice."""
    assert len(set(INVALID)) == len(INVALID)
    assert len(INVALID) + len(NOT_ALLOWED) >= 120


@pytest.mark.parametrize("text", GOOD)
def test_a_good_target_is_admitted(text: bytes) -> None:
    """What the real clients send, and every character that RFC 3986 allows, passes the default patterns."""
    assert error_of(text) == ""


@pytest.mark.parametrize("text", INVALID)
def test_a_hostile_target_is_invalid(text: bytes) -> None:
    """Whatever is not plainly one https URL with one reading is refused by the grammar, whatever the patterns say."""
    assert error_of(text) == "target_invalid"


@pytest.mark.parametrize("text", NOT_ALLOWED)
def test_a_target_outside_the_patterns_is_not_allowed(text: bytes) -> None:
    """A well-formed target that no default pattern fits is refused, however much it looks like one that fits."""
    assert error_of(text) == "target_not_allowed"


@pytest.mark.parametrize(("text", "reason"), REASONS)
def test_the_refusal_names_the_mistake(text: bytes, reason: str) -> None:
    """The developer reads which rule the target broke."""
    problem = parse_target(text)
    assert isinstance(problem, Problem)
    assert reason in problem.detail


def test_the_refusal_of_a_bad_target_repeats_nothing_of_it() -> None:
    """A target that was refused may carry a secret, so the answer holds no part of it."""
    problem = parse_target(b"https://name:hunter2@fal.run/sesame?token=open")
    assert isinstance(problem, Problem)
    assert not any(word in problem.detail for word in ("name", "hunter2", "sesame", "open"))


def test_the_url_is_rebuilt_from_the_parts() -> None:
    """Port 443 is dropped, and the URL is host, path and query of the target and nothing else."""
    assert parse_target(b"https://fal.run:443/a/b?c=d") == Target("fal.run", "/a/b", "?c=d", "https://fal.run/a/b?c=d")


def test_escapes_in_the_path_become_upper_case() -> None:
    """Libcurl writes the escapes of a path in upper case (and a query's as they are), so the target has them so."""
    target = parse_target(b"https://fal.run/%c3%a9?q=%c3%a9")
    assert isinstance(target, Target)
    assert (target.path, target.query) == ("/%C3%A9", "?q=%c3%a9")


def test_the_longest_target_and_host_pass_and_one_byte_more_does_not() -> None:
    """4096 bytes of target and 253 of host are the bounds."""
    target = RUN + b"/" + b"a" * (4096 - len(RUN) - 1)
    host = b"https://" + b"a." * 125 + b"abc/"
    assert isinstance(parse_target(target), Target)
    assert isinstance(parse_target(target + b"a"), Problem)
    assert isinstance(parse_target(host), Target)
    assert isinstance(parse_target(host.replace(b"abc", b"abcd")), Problem)


@given(st.binary(max_size=200))
@example(b"https://fal.run/\xed\xa0\x80")
def test_any_bytes_get_an_answer(text: bytes) -> None:
    """No bytes raise: the answer is a target or a problem."""
    assert isinstance(parse_target(text), Target | Problem)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Return a good target with up to three pieces of it cut, or replaced by a hostile piece."""
    text = draw(st.sampled_from(GOOD))
    pieces = st.one_of(
        st.binary(max_size=3), st.sampled_from([b"..", b"//", b"@", b"%2e", b"%2F", b":443", b"?", b";"])
    )
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        text = text[:start] + draw(pieces) + text[start + draw(st.integers(0, 3)) :]
    return text


@given(mutated())
def test_another_parser_reads_an_accepted_target_alike(text: bytes) -> None:
    """Of a mutated URL that is still accepted, urllib reads the same host, path and query, and nothing besides."""
    target = parse_target(text)
    if isinstance(target, Target):
        parts = urlsplit(target.url)
        query = f"?{parts.query}" if "?" in target.url else ""
        assert (parts.scheme, parts.netloc, parts.path, query) == ("https", target.host, target.path, target.query)
        assert parts.fragment == ""


@given(mutated())
@example(b"https://fal.run/:443/a")
@example(b"https://fal.run:443/:443/%c3?%c3")
def test_an_accepted_target_is_the_text_itself(text: bytes) -> None:
    """Nothing but the port after the host and the case of the path's escapes may differ from what the caller wrote."""
    target = parse_target(text)
    if isinstance(target, Target):
        written = text.decode().removeprefix(f"https://{target.host}").removeprefix(":443")
        path, mark, query = written.partition("?")
        assert target.path == re.sub(r"%..", lambda escape: escape[0].upper(), path)
        assert target.query == mark + query


@given(mutated())
def test_an_accepted_target_has_no_other_reading(text: bytes) -> None:
    """No accepted path has a dot segment, an empty segment or a hidden separator, before or after decoding."""
    target = parse_target(text)
    if isinstance(target, Target):
        segments = target.path[1:].lower().split("/")
        assert "" not in segments[:-1]
        assert not {segment.partition(";")[0] for segment in segments} & {".", ".."}
        assert not any(escape in target.path.lower() for escape in ("%2e", "%2f", "%5c", "%25", "%00", "%0"))


HOSTILE_REPEATS = [
    (b"https://", b"a.", b"!"),
    (b"https://", b"a-", b"/"),
    (b"https://", b"xn--", b"/"),
    (b"https://fal.run/", b"a", b"\\"),
    (b"https://fal.run/", b"a/", b"%"),
    (b"https://fal.run/", b"%20", b"%2f"),
    (b"https://fal.run/", b"%2e", b""),
    (b"https://fal.run/a", b"./", b"|"),
    (b"https://fal.run/a?", b"?", b"|"),
    (b"https://fal.run/a?", b"%20", b"%"),
    (b"", b"https://", b""),
    (b"https://", b"@", b"a"),
    (b"https://", b":443", b"a"),
]


def seconds_for(text: bytes) -> float:
    """Return the least seconds of CPU time that parsing took in seven tries."""
    tries = []
    for _ in range(7):
        start = time.thread_time()
        for _ in range(20):
            parse_target(text)
        tries.append(time.thread_time() - start)
    return min(tries)


@pytest.mark.parametrize(("head", "middle", "tail"), HOSTILE_REPEATS)
def test_the_time_to_refuse_grows_no_faster_than_the_text(head: bytes, middle: bytes, tail: bytes) -> None:
    """Eight times the text takes about eight times as long, where squares would be 64: no input stalls the loop."""
    short, long = (head + middle * (size // len(middle)) + tail for size in (500, 4000))
    assert isinstance(parse_target(long), Problem)
    assert seconds_for(long) < 24 * seconds_for(short)
