"""A policy that is read in parts is the policy that is read as a whole, and what has not changed is not read again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.config import policy_reader as policyreader
from gateway.config.policy_reader import PolicyReader
from gateway.config.ruleset import PolicyError, load_document
from gateway.config.yaml_tree import Tree, read_tree

if TYPE_CHECKING:
    import pytest

    from gateway.config.policy_schema import Document

TEAMS: Final = """# who may call
teams:
  - id: design
    limits: [{name: all, unit: requests, quota: 10, window: 60s}]
  - {id: other}
"""


def item(number: int, more: str = "", *, indent: str = "  ") -> str:
    """Return the text of one key."""
    lines = (f"- id: key-{number}", "  team: design", f'  digests: ["sha256:{number:064x}"]', *more.splitlines())
    return "".join(f"{indent}{line}\n" for line in lines)


def whole(content: bytes) -> Document | tuple[tuple[str, str], ...]:
    """Return the document of a text as it is read in one, or what is wrong."""
    try:
        return load_document(content, origin="x")
    except PolicyError as error:
        return error.errors


def in_parts(reader: PolicyReader, content: bytes) -> Document | tuple[tuple[str, str], ...]:
    """Return the same as it is read in parts."""
    try:
        return reader.read(content, origin="x")
    except PolicyError as error:
        return error.errors


PIECES: Final = (
    *(item(number) for number in range(3)),
    item(1, '  allowed_endpoints: ["fal-ai/**"]'),
    item(2, '  budgets: [{usd: "5", period: day}, {usd: "6", period: day}]'),
    item(3, "  team: other"),
    item(4).replace("design", "nowhere"),
    item(5).replace("key-5", '"key-5'),
    item(6).replace("key-6", '"key-6\n  - x"'),
    item(7).replace("[", "[\n"),
    item(8).replace("key-8", "|-\n     key-8"),
    item(9).replace("key-9", "&a key-9"),
    item(10).replace("key-10", "*a"),
    item(11, indent=""),
    item(12, indent="    "),
    item(13) + "    # a comment\n\n# another\n",
    item(14) + "prices: []\n",
    "  # only a comment\n",
    "  - nothing\n",
    "keys:\n",
    "keys: # of all\n",
    "---\n",
    "x: |\n  keys:\n",
    TEAMS,
    "\u2028  - id: key-1\n",
    "\t- id: key-1\n",
    "    digests:\n    - x\n",
)


@settings(max_examples=150, deadline=None)
@given(
    texts=st.lists(st.lists(st.sampled_from(PIECES), max_size=6).map("".join), min_size=1, max_size=3),
    end=st.booleans(),
)
@example(texts=[TEAMS + "keys:\n" + item(1) + item(2), TEAMS + "keys:\n" + item(2)], end=True)
@example(texts=[TEAMS + "keys:\n" + item(1) + item(8)], end=False)
@example(texts=["keys:\n" + item(1) + TEAMS, "keys:\n" + item(1) + TEAMS.replace("design", "other", 1)], end=True)
def test_parts_and_whole_say_the_same(texts: list[str], *, end: bool) -> None:
    """Whatever follows whatever in a file: the same document, or the same errors at the same lines."""
    reader = PolicyReader()
    for text in texts:
        for content in (text, TEAMS + "keys:\n" + text):
            encoded = (content if end else content.rstrip("\n")).encode()
            assert in_parts(reader, encoded) == whole(encoded)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by the length of each text that is read as YAML."""
    lengths: list[int] = []

    def read(text: bytes) -> Tree:
        lengths.append(len(text))
        return read_tree(text)

    monkeypatch.setattr(policyreader, "read_tree", read)
    return lengths


def test_only_what_has_changed_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a thousand keys, one that is gone costs none, one that is another costs one, and is another object."""
    reader, texts = PolicyReader(), [item(number) for number in range(1000)]
    first = reader.read((TEAMS + "keys:\n" + "".join(texts)).encode(), origin="x")
    lengths = counted(monkeypatch)
    revoked = reader.read((TEAMS + "keys:\n" + "".join(texts[1:])).encode(), origin="x")
    assert len(lengths) == 1  # what is around the keys
    texts[500] = item(2000)
    edited = reader.read((TEAMS + "keys:\n" + "".join(texts[1:])).encode(), origin="x")
    assert (len(lengths), edited.keys[499].id) == (3, "key-2000")
    assert [key for key, old in zip(revoked.keys, first.keys[1:], strict=True) if key is not old] == []
    assert [key.id for key, old in zip(edited.keys, revoked.keys, strict=True) if key is not old] == ["key-2000"]


def test_more_values_than_may_be_are_an_error_in_parts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound of a file is that of all its parts together."""
    content = (TEAMS + "keys:\n" + "".join(item(number) for number in range(20))).encode()
    size = read_tree(content).size
    for most, is_right in ((size, True), (size - 1, False)):
        monkeypatch.setattr(policyreader, "MOST_VALUES", most)
        assert (PolicyReader()._read_in_parts(content) is not None) is is_right
