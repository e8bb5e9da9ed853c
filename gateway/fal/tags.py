"""`x-fal-tags`: the caller's tags, and beside them who the gateway says that the caller is.

Decided here: nobody passes for another team, so the caller's own `gw.team` and `gw.key` go, however they are decorated:
an origin may strip what we would compare. All else of the caller's stays as it came, also where fal will refuse it;
where both do not fit, ours are left out.
"""

from __future__ import annotations

import re
from typing import Final

MOST_PAIRS: Final = 10
MOST_BYTES: Final = 1024
_PREFIX: Final = b"x-fal-tags: "
_VALUE_AT: Final = 11
_BEGINS: Final = (b"x-fal-tags:", b"x-fal-tags;")
_RESERVED: Final = frozenset((b"gw.team", b"gw.key"))
_ODD: Final = re.compile(rb"[^a-z0-9._-]+")


def tagged(lines: list[bytes], *, team: str, key: str) -> list[bytes]:
    """Return field lines (`name: value`, or `name;` for an empty value) with one of tags, the gateway's among them."""
    ours = b"gw.team=%b,gw.key=%b" % (team.encode(), key.encode())
    theirs = [line for line in lines if line.startswith(_BEGINS)]
    if not theirs:
        lines.append(_PREFIX + ours)
        return lines
    kept = [line for line in lines if not line.startswith(_BEGINS)]
    tags = merged([line[_VALUE_AT:] for line in theirs], ours)
    if tags:
        kept.append(_PREFIX + tags)
    return kept


def merged(values: list[bytes], ours: bytes) -> bytes:
    """Return the caller's tags of one or more fields and as many of `ours` (`gw.team=…,gw.key=…`) as fit behind."""
    pairs = [pair for value in values for pair in map(bytes.strip, value.split(b",")) if pair and not _is_ours(pair)]
    team = ours.partition(b",")[0]
    for added in (ours, team):
        tags = b",".join((*pairs, added))
        if len(pairs) + added.count(b",") < MOST_PAIRS and len(tags) <= MOST_BYTES:
            return tags
    return b",".join(pairs)


def _is_ours(pair: bytes) -> bool:
    return _ODD.sub(b"", pair.partition(b"=")[0].lower()) in _RESERVED
