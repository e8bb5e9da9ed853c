"""`x-fal-tags`: ours beside the caller's, within fal's limits, and nobody passes for another."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.fal.tags import MOST_BYTES, MOST_PAIRS, merged, tagged

OURS = b"gw.team=design,gw.key=web"
TEAM = b"gw.team=design"
NINE = b",".join(b"k%d=v" % number for number in range(9))


def sized(size: int) -> bytes:
    """Return four pairs, together of so many bytes."""
    return b"a=%b,b=%b,c=%b,d=%b" % (b"x" * 250, b"x" * 250, b"x" * 250, b"x" * (size - 750 - 11))


@pytest.mark.parametrize(
    ("values", "tags"),
    [
        ([], OURS),
        ([b""], OURS),
        ([b" , ,"], OURS),
        ([b"a=b"], b"a=b," + OURS),
        ([b"a=b, c=d"], b"a=b,c=d," + OURS),
        ([b"a=b", b"c=d"], b"a=b,c=d," + OURS),
        ([b"a=b=c"], b"a=b=c," + OURS),
        ([b"not a pair"], b"not a pair," + OURS),
        # passing for another
        ([b"gw.team=other"], OURS),
        ([b"a=b,gw.team=other,gw.key=k,c=d"], b"a=b,c=d," + OURS),
        ([b"gw.team=other", b"gw.key=k"], OURS),
        ([b" GW.Team = other"], OURS),
        ([b"\xa0gw.team=other"], OURS),
        ([b'"gw.team"=other'], OURS),
        ([b"gw.team"], OURS),
        ([b'a="x,gw.team=other"'], b'a="x,' + OURS),
        ([b"gw.teams=x,agw.key=y,gw.key.x=z"], b"gw.teams=x,agw.key=y,gw.key.x=z," + OURS),
        # limits: 10 pairs, 1,024 bytes; the key goes first, then the team
        ([NINE[:-5]], NINE[:-5] + b"," + OURS),
        ([NINE], NINE + b"," + TEAM),
        ([NINE + b",k9=v"], NINE + b",k9=v"),
        ([NINE + b",k9=v,k10=v"], NINE + b",k9=v,k10=v"),
        ([NINE + b",gw.key=x"], NINE + b"," + TEAM),
        ([sized(MOST_BYTES - 1 - len(OURS))], sized(MOST_BYTES - 1 - len(OURS)) + b"," + OURS),
        ([sized(MOST_BYTES - len(OURS))], sized(MOST_BYTES - len(OURS)) + b"," + TEAM),
        ([sized(MOST_BYTES - 1 - len(TEAM))], sized(MOST_BYTES - 1 - len(TEAM)) + b"," + TEAM),
        ([sized(MOST_BYTES - len(TEAM))], sized(MOST_BYTES - len(TEAM))),
        ([b"a=" + b"x" * 2000], b"a=" + b"x" * 2000),
    ],
)
def test_ours_stand_behind_the_callers(values: list[bytes], tags: bytes) -> None:
    """The caller's tags stay, but for those that say who it is; ours follow as far as fal's limits let them."""
    assert merged(values, OURS) == tags


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([b"accept: */*"], [b"accept: */*", b"x-fal-tags: " + OURS]),
        ([b"x-fal-tags;", b"via: x"], [b"via: x", b"x-fal-tags: " + OURS]),
        ([b"x-fal-tags: a=b", b"via: x", b"x-fal-tags: c=d"], [b"via: x", b"x-fal-tags: a=b,c=d," + OURS]),
        ([b"x-fal-tags-of-old: a=b"], [b"x-fal-tags-of-old: a=b", b"x-fal-tags: " + OURS]),
    ],
)
def test_there_is_one_field(lines: list[bytes], expected: list[bytes]) -> None:
    """Several fields become one, an empty one too, and no other field is touched."""
    assert tagged(lines, team="design", key="web") == expected


PAIRS = st.text(alphabet='abgw.teamky=GW \xa0\t"-', max_size=30).map(lambda text: text.encode("latin-1"))
NAMES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True)


@given(st.lists(st.lists(PAIRS, max_size=6).map(b",".join), max_size=3), NAMES, NAMES)
@example([b"gw.team=a,gw.key=b"], "t", "k")
def test_whatever_the_caller_sends(values: list[bytes], team: str, key: str) -> None:
    """The caller's pairs stay in order; ours are whole and true or not there; fal's limits are not passed by ours."""
    ours = [f"gw.team={team}".encode(), f"gw.key={key}".encode()]
    given_pairs = [pair.strip() for value in values for pair in value.split(b",") if pair.strip()]
    result = merged(values, b",".join(ours)).split(b",")
    added = 2 if result[-2:] == ours else 1 if result[-1:] == ours[:1] else 0
    kept = [pair for pair in result[: len(result) - added] if pair]
    names = [bytes(c for c in pair.partition(b"=")[0].lower() if chr(c) in "abgwtemky.-") for pair in given_pairs]
    assert kept == [pair for pair, name in zip(given_pairs, names, strict=True) if name not in {b"gw.team", b"gw.key"}]
    if added:
        assert len(result) - result.count(b"") <= MOST_PAIRS
        assert sum(map(len, result)) + len(result) - 1 <= MOST_BYTES
