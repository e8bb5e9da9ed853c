"""The target grammar and the allow-list: what is taken, what is refused, and why the developer is told so."""

from __future__ import annotations

import time
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.policy.glob import compile_globs
from gateway.policy.target import DEFAULT_URL_PATTERNS, Target, admit_target, parse_target
from gateway.protocol.problem import Problem

DEFAULT = compile_globs(DEFAULT_URL_PATTERNS)
RUN = b"https://fal.run"

GOOD = [
    b"https://fal.run/fal-ai/flux/dev",
    b"https://fal.run/fal-ai/flux/dev/stream",
    b"https://fal.run:443/fal-ai/flux/dev",
    b"https://fal.run/fal-ai/flux/dev?prompt=a%20cat&seed=1",
    b"https://fal.run/fal-ai/flux/dev?",
    b"https://fal.run/fal-ai/flux/dev/",
    b"https://fal.run/",
    b"https://fal.run/a_b/c~d/e.f/...g/..h/.i/j..",
    b"https://fal.run/a/b!$&'()*+,;=:@c",
    b"https://fal.run/a/%20%C3%A9%5B%e2%82%ac",
    b"https://queue.fal.run/fal-ai/flux/requests/764cabcf-b745-4b3e-ae38-1200304cf45b/status?logs=0",
    b"https://queue.fal.run/workflows/me/flow?fal_webhook=https://example.com/hook?a=b//../c%2f%5c",
    b"https://rest.fal.ai/storage/upload/initiate?storage_type=fal-cdn-v3",
    b"https://rest.fal.ai/storage/upload/initiate-multipart?storage_type=fal-cdn-v3",
    b"https://rest.fal.ai/tokens/",
]

NOT_HTTPS = [
    b"",
    b" ",
    b"fal.run/fal-ai/flux",
    b"/fal-ai/flux",
    b"//fal.run/fal-ai/flux",
    b"https:fal.run/a",
    b"https:/fal.run/a",
    b"https:///fal.run/a",
    b"https:////fal.run/a",
    b"https//fal.run/a",
    b"http://fal.run/a",
    b"HTTPS://fal.run/a",
    b"hTTps://fal.run/a",
    b"ftp://fal.run/a",
    b"ws://fal.run/a",
    b"wss://fal.run/a",
    b"file:///etc/passwd",
    b"gopher://fal.run/a",
    b"javascript:alert(1)",
    b"data:text/plain,a",
    b"dict://fal.run:2628/a",
    b"view-source:https://fal.run/a",
    b"https://",
    b"https:",
    b"<https://fal.run/a>",
    b"https://https://fal.run/a",
    b"https://fal.run/a https://evil.com/",
    b"https://fal.run/a,https://evil.com/^",
]
AUTHORITY = [
    b"https://user@fal.run/a",
    b"https://user:secret@fal.run/a",
    b"https://@fal.run/a",
    b"https://:@fal.run/a",
    b"https://fal.run@evil.com/a",
    b"https://fal.run:443@evil.com/a",
    b"https://fal.run%40evil.com/a",
    b"https://fal.run\\@evil.com/a",
    b"https://evil.com\\@fal.run/a",
    b"https://evil.com#@fal.run/a",
    b"https://evil.com?@fal.run/a",
    b"https://fal.run:80/a",
    b"https://fal.run:8443/a",
    b"https://fal.run:0/a",
    b"https://fal.run:0443/a",
    b"https://fal.run:4430/a",
    b"https://fal.run:65979/a",
    b"https://fal.run:/a",
    b"https://fal.run:443:443/a",
    b"https://fal.run:+443/a",
    b"https://fal.run:443 /a",
    b"https://fal.run:%34%34%33/a",
    b"https://fal.run;evil.com/a",
    b"https://fal.run,evil.com/a",
    b"https://fal.run&evil.com/a",
    b"https://fal.run=evil.com/a",
    b"https://(fal.run)/a",
]
HOSTS = [
    b"https:///a",
    b"https://./a",
    b"https://../a",
    b"https://fal/a",
    b"https://localhost/a",
    b"https://fal.run./a",
    b"https://fal.run../a",
    b"https://.fal.run/a",
    b"https://fal..run/a",
    b"https://-fal.run/a",
    b"https://fal-.run/a",
    b"https://fal.-run/a",
    b"https://fal.run-/a",
    b"https://FAL.RUN/a",
    b"https://Fal.run/a",
    b"https://fal_run.com/a",
    b"https://*.fal.run/a",
    b"https://fal%2erun/a",
    b"https://%66al.run/a",
    b"https://fal.run%00.evil.com/a",
    b"https://fal.run%2f.evil.com/a",
    b"https://fal.run\x00.evil.com/a",
    b"https://fal.run\t.evil.com/a",
    b"https://fal.run\n/a",
    b"https://f\xc3\xa4l.run/a",
    "https://ｆal.run/a".encode(),  # noqa: RUF001 (a full-width look-alike is what is tested)
    "https://fal。run/a".encode(),
    "https://fаl.run/a".encode(),  # noqa: RUF001 (a Cyrillic look-alike is what is tested)
    "https://fal.run\u200b/a".encode(),
    "https://fal.run\u2044a".encode(),
    "https://evil.com\uff0ffal.run/a".encode(),
    b"https://xn--fl-via.run/a",
    b"https://fal.xn--p1ai/a",
    b"https://a.xn--fal.run/a",
    b"https://127.0.0.1/a",
    b"https://127.1/a",
    b"https://2130706433/a",
    b"https://0x7f000001/a",
    b"https://0x7f.0.0.0x1/a",
    b"https://0177.0.0.01/a",
    b"https://169.254.169.254/latest/meta-data/",
    b"https://10.0.0.1.5/a",
    b"https://fal.run.1/a",
    b"https://[::1]/a",
    b"https://[::ffff:127.0.0.1]/a",
    b"https://[fe80::1%25eth0]/a",
    b"https://[fal.run]/a",
    b"https://" + b"a" * 64 + b".run/a",
    b"https://" + b"a" * 63 + b".run" + b"b" * 61 + b"/a",
    b"https://" + b"a." * 126 + b"ab/a",
    b"https://" + b"a" * 4000 + b"/a",
]
DOTS = [
    b"/.",
    b"/..",
    b"/./a",
    b"/../a",
    b"/a/.",
    b"/a/..",
    b"/a/./b",
    b"/a/../b",
    b"/a/%2e/b",
    b"/a/%2E/b",
    b"/a/%2e%2e/b",
    b"/a/%2E%2e/b",
    b"/a/.%2e/b",
    b"/a/%2e./b",
    b"/a/%2e%2e",
    b"/a/%2e%2e%2fb",
    b"/a/..%2fb",
    b"/a/..%2Fb",
    b"/a/..%5cb",
    b"/a/..\\b",
    b"/a\\..\\b",
    b"/a/..;/b",
    b"/a/..;x=1/b",
    b"/a/.;/b",
    b"/a/..%3b/b",
    b"/a/..%3Bx/b",
    b"/a/..?x",
    b"/a/.?x",
    b"/a/..#x",
    b"/a/%252e%252e/b",
    b"/a/%25%32%65/b",
    b"/a/%c0%ae%c0%ae/b",
    b"/a/%C0%AE/b",
    b"/a/%e0%80%ae/b",
    b"/a/%f0%80%80%ae/b",
    b"/a/%u002e%u002e/b",
    b"/a/%uff0e/b",
]
PATHS = [
    b"",
    b"?a=b",
    b"?",
    b"#a",
    b"//",
    b"//a",
    b"/a//b",
    b"/a//",
    b"/a/b///",
    b"/a;//b",
    b"/a%2fb",
    b"/a%2Fb",
    b"/a%5cb",
    b"/a%5Cb",
    b"/a%00",
    b"/a%00.json",
    b"/a%0d%0aHost:%20evil.com",
    b"/a%0D",
    b"/a%0A",
    b"/a%09b",
    b"/a%1b",
    b"/a%7f",
    b"/a%25b",
    b"/a%2500",
    b"/a%c0%af..",
    b"/a%c1%9c",
    b"/a%e0%80%af",
    b"/a%f8%80",
    b"/fal-ai/flux/%72equests/1",
    b"/%66al-ai/flux",
    b"/fal%2Dai/flux",
    b"/a%5Fb",
    b"/a%7Eb",
    b"/a%31",
    b"/a%",
    b"/a%2",
    b"/a%2/b",
    b"/a%zz",
    b"/a%-1",
    b"/a% 0",
    b"/a%%20",
    b"/a b",
    b" /a",
    b"/a ",
    b"/a\t",
    b"/a\x00",
    b"/a\x0b",
    b"/a\x1f",
    b"/a\x7f",
    b"/a\r\nhost: evil.com",
    b"/a\n",
    b"/a\r",
    b"/a\\b",
    b"\\a",
    b"/\xc3\xa9",
    b"/\xff",
    b"/\xe2\x80\xae",
    b'/a"b',
    b"/a<b",
    b"/a>b",
    b"/a[b",
    b"/a]b",
    b"/a{b}",
    b"/a|b",
    b"/a^b",
    b"/a`b",
    b"/a#",
    b"/a#b",
    b"/a?b#c",
    b"/a?b\x00",
    b"/a?b c",
    b"/a?b\r\nx: y",
    b"/a?b\\c",
    b"/a?%",
    b"/a?%a",
    b"/a?%gg",
    b"/a?\xc3\xa9",
    b"/a?b[0]=1",
    b'/a?b="1"',
    b"/a?b|c",
    b"/a?b{c}",
    b"/a?b<c>",
    b"/a?b^c",
    b"/" + b"a" * 4096,
    b"/a?" + b"b" * 4096,
]
INVALID = [*NOT_HTTPS, *AUTHORITY, *HOSTS, *(RUN + path for path in [*DOTS, *PATHS])]

NOT_ALLOWED = [
    b"https://evil.com/fal-ai/flux",
    b"https://fal.run.evil.com/a",
    b"https://evilfal.run/a",
    b"https://evil-fal.run/a",
    b"https://a.fal.run/a",
    b"https://fal.runs/a",
    b"https://fal.ru/a",
    b"https://fa1.run/a",
    b"https://www.fal.run/a",
    b"https://queue.fal.run.com/a",
    b"https://fal.ai/fal.run/a",
    b"https://evil.com/fal.run/a",
    b"https://evil.com/?https://fal.run/a",
    b"https://evil.com/https:/fal.run/a",
    b"https://evil.com/@fal.run/a",
    b"https://api.fal.ai/v1/models/billing-events",
    b"https://rest.fal.ai/",
    b"https://rest.fal.ai/billing",
    b"https://rest.fal.ai/storage/",
    b"https://rest.fal.ai/storage/uploads",
    b"https://rest.fal.ai/storage/Upload/initiate",
    b"https://rest.fal.ai/storage/list?storage/upload/",
    b"https://rest.fal.ai/tokens",
    b"https://rest.fal.ai/tokens/all",
    b"https://rest.fal.ai/tokens/?all",
    b"https://rest.fal.ai/x/tokens/",
    b"https://restxfal.ai/tokens/",
    b"https://metadata.google.internal/computeMetadata/v1/",
]

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
        assert target.url.upper() == text.decode().replace(":443/", "/", 1).upper()


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
    """Return the least seconds that parsing took in seven tries."""
    tries = []
    for _ in range(7):
        start = time.perf_counter()
        for _ in range(20):
            parse_target(text)
        tries.append(time.perf_counter() - start)
    return min(tries)


@pytest.mark.parametrize(("head", "middle", "tail"), HOSTILE_REPEATS)
def test_the_time_to_refuse_grows_no_faster_than_the_text(head: bytes, middle: bytes, tail: bytes) -> None:
    """Eight times the text takes about eight times as long, where squares would be 64: no input stalls the loop."""
    short, long = (head + middle * (size // len(middle)) + tail for size in (500, 4000))
    assert isinstance(parse_target(long), Problem)
    assert seconds_for(long) < 24 * seconds_for(short)
