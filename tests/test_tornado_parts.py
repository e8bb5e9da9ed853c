"""The private parts of Tornado that the gateway leans on, as they are in the pinned release: red when they change.

Their list: gateway/upstream/curl.py (`_multi`, and what Tornado's `close` does with it). The ingress needs none.
"""

from __future__ import annotations

import inspect

import tornado
from tornado.curl_httpclient import CurlAsyncHTTPClient

PINNED = "6.6.1"


def test_the_release_is_the_one_that_was_read() -> None:
    """Another release may have moved what is private: read it again, then change the number here."""
    assert tornado.version == PINNED


def test_the_curl_client_keeps_its_multi_handle_where_it_is_looked_for() -> None:
    """`initialize` makes `_multi` once, without handles of its own when it is asked for none; `close` ends it."""
    made = inspect.getsource(CurlAsyncHTTPClient.initialize)
    assert "self._multi = pycurl.CurlMulti()" in made
    assert "for i in range(max_clients)" in made
    assert "self._multi.close()" in inspect.getsource(CurlAsyncHTTPClient.close)
