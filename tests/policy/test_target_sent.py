"""What the target grammar accepts is what libcurl sends, byte for byte: a real libcurl, a real socket, on loopback."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

import pycurl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.policy.target import Target, parse_target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PLAIN = "ABZabz019-._~!$&'()*+,;=:@"
PLAIN_TEXT = st.text(PLAIN, min_size=1, max_size=8)
PATH_ESCAPES = st.sampled_from(["%20", "%c3%a9", "%C3%A9", "%3a", "%3f", "%23", "%e2%82%ac", "%F0%9f%98%80", "%5b"])
QUERY_ESCAPES = st.sampled_from(["%20", "%2f", "%2E%2e", "%00", "%0d%0A", "%25", "%c3"])
LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,5}[a-z0-9])?", fullmatch=True)
HOST = st.builds(lambda labels, last: ".".join([*labels, last]), st.lists(LABEL, min_size=1, max_size=3), LABEL)
SEGMENT = st.lists(PLAIN_TEXT | PATH_ESCAPES, min_size=1, max_size=3).map("".join)
PATH = st.builds(
    lambda segments, end: "/" + "/".join(segments) + end, st.lists(SEGMENT, max_size=4), st.just("") | st.just("/")
)
QUERY = st.lists(st.text(PLAIN + "/?", max_size=6) | QUERY_ESCAPES, max_size=4).map(lambda parts: "?" + "".join(parts))
URL = st.builds("https://{}{}{}{}".format, HOST, st.sampled_from(["", ":443"]), PATH, QUERY | st.just(""))

Sent = tuple[bytes, str | None]


class RecordingHandler(BaseHTTPRequestHandler):
    """Answers 204 to anything, and keeps the request line as it came, with the host field."""

    seen: list[Sent]
    raw_requestline: bytes

    def do_GET(self) -> None:
        """Record the request and answer it."""
        self.seen.append((self.raw_requestline, self.headers["host"]))
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the name is the base class's)
        """Keep silent."""


@pytest.fixture(scope="module")
def send() -> Iterator[Callable[[Target], Sent]]:
    """Yield a function that lets libcurl send a target's request, in plain text, to a recording server."""
    seen: list[Sent] = []
    server = HTTPServer(("127.0.0.1", 0), type("Recorder", (RecordingHandler,), {"seen": seen}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    curl = pycurl.Curl()
    curl.setopt(pycurl.PATH_AS_IS, 1)
    curl.setopt(pycurl.NOPROXY, "*")
    curl.setopt(pycurl.TIMEOUT, 10)
    curl.setopt(pycurl.FORBID_REUSE, 1)
    curl.setopt(pycurl.CONNECT_TO, [f"::127.0.0.1:{server.server_port}"])

    def sent(target: Target) -> Sent:
        curl.setopt(pycurl.URL, target.url.replace("https://", "http://", 1))
        curl.perform()
        return seen.pop()

    yield sent
    curl.close()
    server.shutdown()
    thread.join()
    server.server_close()


def expected_of(target: Target) -> Sent:
    """Return what the check believed would be sent."""
    return f"GET {target.path}{target.query} HTTP/1.1\r\n".encode(), target.host


@settings(max_examples=300, deadline=None)
@given(url=URL)
def test_libcurl_sends_what_was_accepted(url: str, send: Callable[[Target], Sent]) -> None:
    """Of every accepted target, path, query and host reach the origin as the check saw them."""
    target = parse_target(url.encode())
    if isinstance(target, Target):
        assert send(target) == expected_of(target)


@pytest.mark.parametrize(
    "url",
    [
        b"https://fal.run/",
        b"https://fal.run/?",
        b"https://fal.run/a/b/?",
        b"https://fal.run:443/a/...b/..c/.d/e..",
        b"https://fal.run/%c3%a9/%3b?x=%2f..%2f&y=/../..//",
        b"https://rest.fal.ai/storage/upload/initiate?storage_type=fal-cdn-v3",
        b"https://fal.run/" + b"a/" * 2040,
    ],
)
def test_libcurl_sends_the_odd_ones_too(url: bytes, send: Callable[[Target], Sent]) -> None:
    """Dots, empty queries and long paths are sent as they were checked: nothing is collapsed, decoded or cut."""
    target = parse_target(url)
    assert isinstance(target, Target)
    assert send(target) == expected_of(target)


def test_the_recording_would_show_a_change(send: Callable[[Target], Sent]) -> None:
    """A path that libcurl does change, lower-case escapes, is seen as changed: the comparison above can fail."""
    unchecked = Target("fal.run", "/%c3%a9", "", "https://fal.run/%c3%a9")
    assert send(unchecked) != expected_of(unchecked)
