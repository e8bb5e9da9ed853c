"""A client of api.fal.ai: lists in pages, asked for by GET, again where that may help.

The decision: numbers are read as decimals, since they are money; a list is either followed to its end or an error, and
never silently a part of it; and no error quotes the request, because the credential stands in it.
"""

from __future__ import annotations

import json
import random
import threading
from dataclasses import dataclass, field
from decimal import Decimal
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, NoReturn
from urllib.parse import urlencode

from gateway.platform.backoff import Backoff, is_passing
from gateway.platform.http_client import ANSWER_SECONDS, CONNECT_SECONDS, Answer, Transport, UnreachableError
from gateway.platform.redaction import redacted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

HOST: Final = "api.fal.ai"
IDS_MOST: Final = 50
"""How many ids one question may name."""

PAGES_MOST: Final = 1_000
_CONTENT_MOST_BYTES: Final = 16 << 20
_REASON_MOST: Final = 300


class FalApiError(Exception):
    """fal's API gave no answer that can be used; the text says why in words, and never holds the key.

    `status` is that of the answer, None where none came.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Patience:
    """How often to ask, and for how long to wait: for an answer, and between attempts."""

    attempts: int = 4
    backoff: Backoff = field(default_factory=lambda: Backoff(first_seconds=0.5, longest_seconds=30))
    connect_seconds: float = CONNECT_SECONDS
    answer_seconds: float = ANSWER_SECONDS


def _unseen(_entries: int) -> None:
    """Ignore progress."""


class FalApi:
    """The API under one key; for one thread, but for `stop`."""

    def __init__(
        self,
        key: str,
        *,
        base_url: str | None = None,
        ca_file: str | None = None,
        patience: Patience | None = None,
        on_entries: Callable[[int], None] = _unseen,
    ) -> None:
        """Ask as `Authorization: Key …`; `base_url` says where to connect in place of fal, the Host field stays.

        `on_entries` is called after each page with how many entries of lists were read in all.
        """
        self._on_entries, self._entries = on_entries, 0
        self._patience = patience or Patience()
        self._transport = Transport(
            ca_file=ca_file,
            connect_seconds=self._patience.connect_seconds,
            answer_seconds=self._patience.answer_seconds,
        )
        self._base_url = (base_url or f"https://{HOST}").rstrip("/")
        self._fields = (f"Host: {HOST}", f"Authorization: Key {key}", "Accept: application/json")
        self._secrets = {key, *key.split(":")}
        self._stopped = threading.Event()

    def entries(self, path: str, *, name: str, query: Sequence[tuple[str, str]]) -> Iterator[dict[str, Any]]:
        """Yield the objects of the list `name` at `path`, page after page; JSON numbers with a fraction are Decimals.

        Raises FalApiError, also behind the first pages, and where there are more than PAGES_MOST of them.
        """
        cursor: list[tuple[str, str]] = []
        for _ in range(PAGES_MOST):
            page = self._page(f"{path}?{urlencode([*query, *cursor])}")
            found, following = page.get(name), page.get("next_cursor")
            if not isinstance(found, list):
                raise FalApiError(f"fal's answer has no list of {name}")
            self._entries += len(found)
            self._on_entries(self._entries)
            yield from (entry for entry in found if isinstance(entry, dict))
            if not page.get("has_more"):
                return
            if following is None:
                raise FalApiError(f"fal's list of {name} breaks off: there is more, but no cursor that leads there")
            cursor = [("cursor", str(following))]
        raise FalApiError(f"fal's list of {name} has more than {PAGES_MOST} pages; ask for less at once")

    def stop(self) -> None:
        """End what is under way within about a second; whatever is asked from now on is a FalApiError."""
        self._stopped.set()
        self._transport.stop()

    def close(self) -> None:
        """Close the connections; only once no thread asks any more."""
        self._transport.close()

    def _page(self, target: str) -> dict[str, Any]:
        answer = self._answer(target)
        if answer.status != HTTPStatus.OK:
            raise FalApiError(self._without_key(_refusal(answer))[:_REASON_MOST], status=answer.status)
        try:
            page = json.loads(answer.content, parse_float=Decimal, parse_constant=_no_number)
        except (ValueError, RecursionError):
            raise FalApiError("fal's answer is no JSON", status=answer.status) from None
        if not isinstance(page, dict):
            raise FalApiError("fal's answer is no JSON object", status=answer.status)
        return page

    def _without_key(self, text: str) -> str:
        """Return the text without the key or a half of it: an error of fal's may quote what it was sent."""
        return redacted(text, self._secrets)

    def _answer(self, target: str) -> Answer:
        """Return the first answer that is not worth another attempt, or what the last attempt gave."""
        for attempt in range(1, self._patience.attempts + 1):
            last = attempt == self._patience.attempts
            try:
                answer = self._transport.ask(
                    self._base_url + target, fields=self._fields, most_bytes=_CONTENT_MOST_BYTES
                )
            except UnreachableError as fault:
                if last or self._stopped.is_set():
                    raise FalApiError(f"fal's API was not reached: {fault}") from None
                asked = None
            else:
                if last or not is_passing(answer.status):
                    return answer
                asked = answer.retry_after_seconds
            self._stopped.wait(
                self._patience.backoff.pause_seconds(attempt, drawn=random.random(), asked_seconds=asked)  # noqa: S311 - spreads load, guards nothing
            )
        raise FalApiError("fal's API was not asked: no attempt is allowed")


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON's")


def _refusal(answer: Answer) -> str:
    """Return what fal says of a refusal, as far as it says it as its errors do: `detail` or `message` in JSON."""
    reason = ""
    try:
        told = json.loads(answer.content)
        shown = told.get("detail") or told.get("message") or told.get("error", {}).get("message")
        reason = f": {' '.join(shown.split())}" if isinstance(shown, str) else ""
    except (ValueError, AttributeError, RecursionError):
        pass  # no JSON, or another shape: the status has to do
    return f"fal's API answered {answer.status}{reason}"
