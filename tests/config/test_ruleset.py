"""What a policy file makes: one frozen ruleset of plain values for the hot path."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config.policy_schema import Document
from gateway.config.ruleset import PolicyError, load_ruleset, load_ruleset_file, ruleset_with_key
from gateway.policy.credential import ANONYMOUS, digest_of, new_key_text
from gateway.policy.target import DEFAULT_URL_PATTERNS

if TYPE_CHECKING:
    from pathlib import Path

POLICY: dict[str, Any] = {
    "targets": {
        "allowed_url_patterns": ["*.fal.run/**"],
        "allowed_endpoints": ["fal-ai/**", "acme/app"],
        "binary_url_patterns": ["rest.fal.ai/storage/**"],
        "isolate_jobs": "key",
    },
    "clients": {
        "allow_unauthorized_requests": True,
        "cors_allowed_origins": ["https://app.example.com", "http://localhost:3000", "http://[::1]:1", "app://x"],
    },
    "teams": [{"id": "design"}, {"id": "0.a_b-c"}],
    "keys": [
        {
            "id": "web",
            "team": "design",
            "digests": ["sha256:" + "0a" * 32, "sha256:" + "0B" * 32],
            "expires_at": "2027-01-01T01:00:00+01:00",
            "allowed_endpoints": ["fal-ai/flux/**", "fal-ai/x/stream"],
            "max_body_bytes": 1000,
        },
        {"id": "all", "team": "0.a_b-c", "digests": ["sha256:" + "0c" * 32]},
    ],
    "prices": [
        {"endpoint": "fal-ai/flux/dev", "unit": "megapixel", "usd": "0.025", "typical_units": "1.5"},
        {"endpoint": "fal-ai/y", "unit": "compute second", "usd": 1},
    ],
}


def test_an_empty_file_makes_the_defaults() -> None:
    """No text, a comment, an empty document, an empty mapping: the default targets, no keys, nobody let in."""
    for text in ("", "# nothing", "---", "{}", b"", b"\xef\xbb\xbf"):
        rules = load_ruleset(text, origin="p")
        assert rules.url_patterns.patterns == DEFAULT_URL_PATTERNS
        assert (rules.endpoint_globs, rules.binary_patterns.patterns, rules.isolate_jobs) == (None, (), "team")
        assert (rules.anonymous, rules.cors_origins) == (None, frozenset())
        assert (dict(rules.keys_by_digest), rules.teams, rules.keys, dict(rules.prices)) == ({}, (), (), {})


def test_every_field_arrives_as_a_plain_value() -> None:
    """Digests as 32 bytes, times in seconds since the epoch, patterns compiled, origins as bytes, money exact."""
    rules = load_ruleset(yaml.safe_dump(POLICY), origin="p")
    assert set(rules.keys_by_digest) == {b"\x0a" * 32, b"\x0b" * 32, b"\x0c" * 32}
    web, other = rules.keys_by_digest[b"\x0a" * 32], rules.keys_by_digest[b"\x0c" * 32]
    assert rules.keys_by_digest[b"\x0b" * 32] is web
    assert (web.key, web.team, web.max_body_bytes) == ("web", "design", 1000)
    assert web.expires_at == datetime(2027, 1, 1, tzinfo=UTC).timestamp()
    assert web.endpoints is not None
    assert web.endpoints.matches("fal-ai/flux/dev")
    assert not web.endpoints.matches("fal-ai/other")
    assert (other.expires_at, other.endpoints, other.max_body_bytes) == (None, None, None)
    assert rules.url_patterns.matches("queue.fal.run/fal-ai/x")
    assert rules.binary_patterns.matches("rest.fal.ai/storage/x")
    assert rules.endpoint_globs is not None
    assert rules.endpoint_globs.matches("acme/app")
    assert rules.anonymous is not None
    assert (rules.anonymous.key, rules.isolate_jobs) == (ANONYMOUS.key, "key")
    assert rules.cors_origins == {b"https://app.example.com", b"http://localhost:3000", b"http://[::1]:1", b"app://x"}
    assert (rules.teams, rules.keys) == (("design", "0.a_b-c"), (("web", "design"), ("all", "0.a_b-c")))
    flux, second = rules.prices["fal-ai/flux/dev"], rules.prices["fal-ai/y"]
    assert (flux.unit, flux.usd, flux.typical_units) == ("megapixel", "0.025", Decimal("1.5"))
    assert (second.usd, second.typical_units) == ("1", None)


def test_endpoints_are_named_by_a_price_or_by_a_pattern_without_wildcards() -> None:
    """What operators wrote out in full may stand in metrics, and keeps its last `stream`."""
    rules = load_ruleset(yaml.safe_dump(POLICY), origin="p")
    assert rules.named_endpoints == {"acme/app", "fal-ai/x/stream", "fal-ai/flux/dev", "fal-ai/y"}


def test_json_is_yaml() -> None:
    """The same policy as JSON, indented by blanks or tabs, makes the same rules."""
    expected = load_ruleset(yaml.safe_dump(POLICY), origin="p")
    for indent in (None, 2, "\t"):
        assert load_ruleset(json.dumps(POLICY, indent=indent), origin="p") == expected


def test_an_alias_stands_for_its_value() -> None:
    """Lists that are shared by keys may be written once."""
    shared = ["fal-ai/flux/**"]
    keys = [
        {"id": name, "team": "t", "digests": [f"sha256:{name * 64}"], "allowed_endpoints": shared}
        for name in ("a", "b")
    ]
    text = yaml.safe_dump({"teams": [{"id": "t"}], "keys": keys})
    assert "*id001" in text
    patterns = [
        who.endpoints.patterns for who in load_ruleset(text, origin="p").keys_by_digest.values() if who.endpoints
    ]
    assert patterns == [("fal-ai/flux/**",)] * 2


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("60s", 60), ("5m", 300), ("24h", 86_400), ("1.5h", 5400), ("7d", 604_800), ("90", 90), (90, 90), (0.5, 0.5)],
)
def test_durations_have_a_unit_or_are_seconds(written: object, seconds: float) -> None:
    """`60s`, `5m`, `24h`, `7d`, or a number of seconds; a number in quotes has no unit and is none."""
    if written == "90":
        with pytest.raises(ValueError, match="60s, 5m, 24h"):
            Document.model_validate({"settle_deadline": written})
    else:
        assert Document.model_validate({"settle_deadline": written}).settle_deadline == seconds


def test_a_limit_and_a_budget_are_read_whole() -> None:
    """The whole schema of limits and budgets is parsed now, ready for the release that enforces it."""
    limit = {"name": "submits", "unit": "requests", "class": "paid", "quota": 60, "window": "60s", "burst": 10}
    team = {
        "id": "t",
        "limits": [
            {**limit, "max_wait": "500ms", "shadow": True},
            {"name": "p", "unit": "concurrent-requests", "quota": 8},
        ],
        "budgets": [{"usd": "0.000000001", "period": "week", "warn_at": [0.5, 1]}],
    }
    read = Document.model_validate({"teams": [team]}).teams[0]
    submits, parallel = read.limits
    assert (submits.class_, submits.quota, submits.window, submits.burst) == ("paid", 60, 60, 10)
    assert (submits.max_wait, submits.shadow) == (0.5, True)
    assert (parallel.class_, parallel.window, parallel.burst, parallel.max_wait, parallel.shadow) == (
        None,
        None,
        None,
        0,
        False,
    )
    assert (read.budgets[0].usd, read.budgets[0].warn_at) == (Decimal("0.000000001"), [0.5, 1])


def test_a_key_made_for_this_run_opens_the_defaults() -> None:
    """Without a policy file there is one key, `default` of the team `default`, and everything else as by default."""
    digest = digest_of(new_key_text().encode())
    rules = ruleset_with_key(digest)
    principal = rules.keys_by_digest[digest]
    assert (principal.key, principal.team, principal.expires_at) == ("default", "default", None)
    assert (rules.teams, rules.keys) == (("default",), (("default", "default"),))
    assert rules.url_patterns.patterns == DEFAULT_URL_PATTERNS
    assert rules.anonymous is None


def test_a_ruleset_is_frozen() -> None:
    """A reload swaps the whole; nobody changes a part of it."""
    rules: Any = ruleset_with_key(bytes(32))
    with pytest.raises(FrozenInstanceError):
        rules.anonymous = None
    with pytest.raises(TypeError):
        rules.keys_by_digest[b""] = None


def test_a_file_is_read_like_its_text(tmp_path: Path) -> None:
    """The loader of files gives what the loader of texts gives."""
    file = tmp_path / "policy.yaml"
    file.write_text(yaml.safe_dump(POLICY), encoding="utf-8")
    assert load_ruleset_file(file) == load_ruleset(yaml.safe_dump(POLICY), origin="p")


def judged(text: str | bytes) -> None:
    """Load a text; anything but rules or a PolicyError with a reason is a bug."""
    try:
        load_ruleset(text, origin="p")
    except PolicyError as refused:
        errors = refused.errors
    else:
        return
    assert errors
    assert all(message for _, message in errors)


@given(st.text() | st.binary())
def test_any_text_makes_rules_or_a_refusal(text: str | bytes) -> None:
    """Whatever stands in the file, the loader ends in rules or a PolicyError, and in nothing else."""
    judged(text)


PLACES = (
    ["targets", "allowed_url_patterns"],
    ["targets", "isolate_jobs"],
    ["clients"],
    ["clients", "cors_allowed_origins", 0],
    ["teams", 0],
    ["teams", 0, "id"],
    ["keys"],
    ["keys", 0, "team"],
    ["keys", 0, "digests", 1],
    ["keys", 0, "expires_at"],
    ["keys", 0, "allowed_endpoints"],
    ["keys", 0, "max_body_bytes"],
    ["prices", 0, "usd"],
    ["prices", 0],
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.datetimes()
ODD_VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)


@given(
    st.sampled_from(PLACES), ODD_VALUES, st.sampled_from(["", "limits", "budgets", "on_state_loss", "settle_deadline"])
)
@settings(max_examples=200)
def test_any_value_at_any_place_makes_rules_or_a_refusal(place: list[Any], value: object, extra: str) -> None:
    """A good policy with one odd value somewhere, of any type, ends in rules or a PolicyError."""
    document = json.loads(json.dumps(POLICY))
    *above, last = place
    inner = document
    for step in above:
        inner = inner[step]
    inner[last] = value
    if extra:
        document["teams"].append({"id": "odd", extra: value})
        document[extra] = value
    judged(yaml.safe_dump(document, allow_unicode=True))
