"""Texts of others, such as a driver's error, without the secrets that they may quote.

The decision: what is secret is known where a URL is read, so it is searched for by value; a pattern for passwords would
miss the next one. A short one is only taken out as a word of its own, or a user `a` would leave nothing to read.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

STARS: Final = "***"
_SHORT: Final = 6


def redacted(text: str, secrets: Iterable[str | None]) -> str:
    """Return the text with stars in place of each secret; None and an empty one are no secrets."""
    for secret in sorted({secret for secret in secrets if secret}, key=len, reverse=True):
        if len(secret) < _SHORT:
            text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", STARS, text)
        else:
            text = text.replace(secret, STARS)
    return text


def has_white_space(text: str) -> bool:
    """Say whether a URL holds what none may: white space, a line end, any other control character, also around it."""
    return any(char.isspace() or not char.isprintable() for char in text)


WHITE_SPACE: Final = "has white space or a line end within or around it (a space in a URL is %20)"
"""What is wrong with a URL in which there is some."""
