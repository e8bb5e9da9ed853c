"""A fal credential as text: what makes it fit to stand in a request, and how it is read out of a file.

The gateway's own and the teams' are judged here alike. A message never quotes the text, however wrong it is.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

_FILE_LIMIT_BYTES: Final = 4096


class AbsentKeyError(ValueError):
    """There is nothing where the credential should be; what is there and wrong is a plain ValueError."""


def fit_for_a_field(key: str) -> str:
    """Return the key; a blank, a line break or a letter beyond ASCII could not stand in a header, or would split it."""
    if not re.fullmatch(r"[!-~]+", key):
        raise ValueError("should be one word of printable ASCII characters")
    if len(key) > _FILE_LIMIT_BYTES:
        raise ValueError(f"is longer than {_FILE_LIMIT_BYTES} characters")
    return key


def key_in_file(path: str) -> str:
    """Return the key that a file holds; AbsentKeyError where it cannot be read, ValueError where it is unfit."""
    try:
        with Path(path).open("rb") as file:
            content = file.read(_FILE_LIMIT_BYTES + 1)
    except OSError as fault:
        raise AbsentKeyError(f"cannot be read: {fault.strerror}") from fault
    except ValueError as fault:  # a path with a null byte
        raise AbsentKeyError("cannot be read: no such path can be") from fault
    if len(content) > _FILE_LIMIT_BYTES:
        raise ValueError(f"is longer than {_FILE_LIMIT_BYTES} bytes; is it the key's file?")
    return fit_for_a_field(content.decode("ascii", errors="replace").strip("\r\n"))
