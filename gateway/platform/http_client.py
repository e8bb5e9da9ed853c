"""One HTTP request at a time from a plain thread, bounded in time and size, and stopped from another thread.

The decision: libcurl and not `urllib.request`, though this is nowhere near the data path. A deadline over the whole
exchange, name lookup included, and an end to it within a second from another thread are options there; with the
standard library both would be ours to build around a socket. And what is trusted by TLS, and that no proxy of the
environment is, stays the same as on the data path.
"""

from __future__ import annotations

import threading
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

import pycurl

from gateway.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Sequence

CONNECT_SECONDS: Final = 10.0
ANSWER_SECONDS: Final = 30.0

_WORDS: Final = MappingProxyType(
    {
        pycurl.E_COULDNT_RESOLVE_HOST: "the name could not be resolved",
        pycurl.E_COULDNT_CONNECT: "no connection could be made",
        pycurl.E_OPERATION_TIMEDOUT: "no whole answer came in time",
        pycurl.E_GOT_NOTHING: "the connection ended without an answer",
        pycurl.E_PARTIAL_FILE: "the answer broke off",
        pycurl.E_RECV_ERROR: "the connection broke",
        pycurl.E_SEND_ERROR: "the connection broke",
        pycurl.E_SSL_CONNECT_ERROR: "no trusted TLS connection could be made",
        pycurl.E_PEER_FAILED_VERIFICATION: "no trusted TLS connection could be made",
        pycurl.E_SSL_CACERT_BADFILE: "the CA bundle could not be read",
        pycurl.E_WRITE_ERROR: "the answer is longer than is taken",
        pycurl.E_ABORTED_BY_CALLBACK: "stopped",
    }
)
"""What a result of libcurl's is called here: its own texts quote addresses, and URLs may hold secrets."""


class UnreachableError(Exception):
    """No whole answer came; the text says why, and names neither URL nor credential."""


class Answer(NamedTuple):
    """A whole answer: its status, `Retry-After` in seconds where it says some, its content."""

    status: int
    retry_after_seconds: int | None
    content: bytes


class Transport:
    """A connection or two, kept for the next request; for one thread, but for `stop`. Follows no redirect."""

    def __init__(
        self,
        *,
        ca_file: str | None = None,
        connect_seconds: float = CONNECT_SECONDS,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        """Trust `ca_file` (None: libcurl's own default); `answer_seconds` bounds the whole of an exchange."""
        self._curl = pycurl.Curl()
        self._stopped = threading.Event()
        self._ca_file = ca_file
        self._connect_ms = max(1, int(connect_seconds * 1000))
        self._answer_ms = max(1, int(answer_seconds * 1000))

    def ask(self, url: str, *, fields: Sequence[str], content: bytes | None = None, most_bytes: int) -> Answer:
        """Return the answer to a GET, or to a POST where there is content; `fields` are whole lines.

        Raises UnreachableError, also where the answer has more than `most_bytes`, and once `stop` was called.
        """
        if self._stopped.is_set():
            raise UnreachableError(_WORDS[pycurl.E_ABORTED_BY_CALLBACK])
        found = _Reception(most_bytes)
        self._prepare(url, fields, content)
        self._curl.setopt(pycurl.HEADERFUNCTION, found.take_field)
        self._curl.setopt(pycurl.WRITEFUNCTION, found.take_content)
        try:
            self._curl.perform()
        except pycurl.error as fault:
            raise UnreachableError(_WORDS.get(fault.args[0], f"libcurl's error {fault.args[0]}")) from None
        return Answer(self._curl.getinfo(pycurl.RESPONSE_CODE), found.retry_after_seconds, bytes(found.content))

    def stop(self) -> None:
        """End the request that is under way, within about a second, and every one that is begun later."""
        self._stopped.set()

    def close(self) -> None:
        """Close the connections; only once no thread uses them any more."""
        self._curl.close()

    def _prepare(self, url: str, fields: Sequence[str], content: bytes | None) -> None:
        options = {
            pycurl.URL: url,
            pycurl.NOSIGNAL: 1,
            pycurl.PROTOCOLS: pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS,
            pycurl.PROXY: "",  # the environment's proxies are not for a gateway
            pycurl.NOPROXY: "*",
            pycurl.HTTP_VERSION: pycurl.CURL_HTTP_VERSION_1_1,
            pycurl.SSLVERSION: pycurl.SSLVERSION_TLSv1_2,
            pycurl.CONNECTTIMEOUT_MS: self._connect_ms,
            pycurl.TIMEOUT_MS: self._answer_ms,
            pycurl.USERAGENT: f"fal-gateway/{VERSION}",
            pycurl.HTTPHEADER: [*fields, "Expect:"],
            pycurl.NOPROGRESS: 0,
            pycurl.XFERINFOFUNCTION: self._is_stopped,
        }
        if self._ca_file is not None:
            options[pycurl.CAINFO] = self._ca_file
        if content is not None:
            options |= {pycurl.POST: 1, pycurl.POSTFIELDS: content}
        self._curl.reset()  # forgets all options, and keeps the connections
        for option, value in options.items():
            self._curl.setopt(option, value)

    def _is_stopped(self, *_progress: float) -> int:
        return int(self._stopped.is_set())


class _Reception:
    """What has come of an answer; `take_field` and `take_content` are libcurl's callbacks."""

    def __init__(self, most_bytes: int) -> None:
        self.content = bytearray()
        self.retry_after_seconds: int | None = None
        self._most_bytes = most_bytes

    def take_field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        text = value.strip()
        if name.lower() == b"retry-after" and text.isdigit() and len(text) <= 9:  # noqa: PLR2004 - thirty years
            self.retry_after_seconds = int(text)

    def take_content(self, piece: bytes) -> int | None:
        if len(self.content) + len(piece) > self._most_bytes:
            return -1  # any number but the piece's length ends the transfer
        self.content += piece
        return None
