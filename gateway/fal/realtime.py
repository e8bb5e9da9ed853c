"""A request for a realtime token, as it is sent on: what it may ask for is bounded, and the content is written again.

The decision it carries: a token is used at fal directly, past this gateway, until it expires. So nothing of a token
request is forwarded as it came: fal reads a document that was written here, of the two fields that were judged. Any
other field is dropped, since `Token_Expiration` beside `token_expiration` may mean something to a lenient reader.
"""

from __future__ import annotations

import json
from typing import Final, NamedTuple

from gateway.fal.calls import read_token_request
from gateway.http.problem import Problem, refusal

_BAD_SECONDS: Final = refusal(
    "request_invalid", "token_expiration of the token request should be a whole number of seconds, at least 1."
)


class TokenRequest(NamedTuple):
    """The apps that are asked for, and the content to send."""

    apps: tuple[str, ...]
    content: bytes


def bounded_token_request(content: bytes, *, max_token_seconds: int) -> TokenRequest | Problem:
    """Return a token request for at most so many seconds (for so many where it does not say), or a problem.

    `request_invalid`: it cannot be read in one way only.
    """
    document = read_token_request(content)
    if isinstance(document, Problem):
        return document
    seconds = _seconds(document.get("token_expiration"), max_token_seconds)
    if seconds is None:
        return _BAD_SECONDS
    apps = tuple(document["allowed_apps"])
    written = json.dumps({"allowed_apps": apps, "token_expiration": seconds}, separators=(",", ":"))
    return TokenRequest(apps, written.encode())


def _seconds(asked: object, most: int) -> int | None:
    """Return how long a token may live; None where what is asked for is no number of seconds."""
    if asked is None:
        return most
    is_whole = isinstance(asked, int) or (isinstance(asked, float) and asked.is_integer())
    if isinstance(asked, bool) or not is_whole or not isinstance(asked, int | float) or asked < 1:
        return None
    return min(int(asked), most)
