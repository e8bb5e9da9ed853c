"""The rules of one edition after another: as if each were the first, and only what has changed is made again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gateway.config.policy_schema import Document
from gateway.config.policy_snapshot import PolicySnapshot
from gateway.config.ruleset import compile_rules
from gateway.platform.published import Published
from gateway.processes.rules import RulesReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gateway.config.ruleset import Ruleset
    from gateway.policy.credential import Principal

Plain = dict[str, Any]


def policy() -> Plain:
    """Return a policy of two teams with two keys each, as plain values."""
    limits = [{"name": "all", "unit": "requests", "quota": 10, "window": 60}]
    keys = [
        {"id": f"key-{number}", "team": f"team-{number % 2}", "digests": [f"sha256:{number:064x}"]}
        for number in range(4)
    ]
    return {"teams": [{"id": "team-0", "limits": limits}, {"id": "team-1"}], "keys": keys}


@pytest.fixture
def publish() -> Iterator[Callable[[Plain], Ruleset]]:
    """Return `publish(policy)`: the rules that one reader makes of a policy that is published."""
    published = Published()
    reader = RulesReader(published)

    def read(plain: Plain) -> Ruleset:
        document = Document.model_validate(plain)
        generation = published.publish(PolicySnapshot(document=document, team_keys={}, source="").to_json())
        newest = reader.read()
        assert newest.generation == generation
        assert newest.edition.document == document
        assert newest.rules == compile_rules(document)
        return newest.rules

    yield read
    published.close()


def principals(rules: Ruleset) -> dict[str, Principal]:
    """Return the principals by the id of their key."""
    return {principal.key: principal for principal in rules.keys_by_digest.values()}


def changed(before: Ruleset, after: Ruleset) -> set[str]:
    """Return the keys whose principal is another object than before, or was not there."""
    old = principals(before)
    return {key for key, principal in principals(after).items() if old.get(key) is not principal}


def test_a_key_that_changes_alone_is_made_again(publish: Callable[[Plain], Ruleset]) -> None:
    """A key that is revoked is gone, one that changes is another, one that comes is new; the others are kept."""
    first = publish(policy())
    revoked = policy()
    del revoked["keys"][1]
    second = publish(revoked)
    assert (changed(first, second), len(second.keys_by_digest)) == (set(), 3)
    edited = policy()
    edited["keys"][2]["budgets"] = [{"usd": "5", "period": "day"}]
    third = publish(edited)
    assert changed(second, third) == {"key-1", "key-2"}
    assert principals(third)["key-2"].budgets


def test_a_team_that_changes_takes_its_keys_along(publish: Callable[[Plain], Ruleset]) -> None:
    """A limit of the team is a limit of each of its keys, and of no other."""
    first = publish(policy())
    edited = policy()
    edited["teams"][0]["limits"][0]["quota"] = 20
    assert changed(first, publish(edited)) == {"key-0", "key-2"}


def test_what_holds_for_all_keys_changes_all(publish: Callable[[Plain], Ruleset]) -> None:
    """Whether realtime tokens are given out goes by the top of the policy where neither key nor team says more."""
    first = publish(policy())
    edited = {**policy(), "realtime": {"mode": "refuse"}}
    assert changed(first, publish(edited)) == {f"key-{number}" for number in range(4)}


def test_a_policy_may_lose_all_keys_and_get_them_back(publish: Callable[[Plain], Ruleset]) -> None:
    """Without keys, and with them again, rules are those of that policy alone."""
    publish(policy())
    assert not publish({"teams": [{"id": "team-0"}]}).keys_by_digest
    assert len(publish(policy()).keys_by_digest) == 4
