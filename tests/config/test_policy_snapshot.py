"""An edition is handed on as JSON, and arrives as what was sent."""

from __future__ import annotations

import yaml

from gateway.config.policy_schema import Document
from gateway.config.policy_snapshot import PolicySnapshot, edition_of

WHOLE = """
targets:
  allowed_url_patterns: ["fal.run/**"]
  allowed_endpoints: ["fal-ai/**"]
  binary_url_patterns: ["rest.fal.ai/**"]
  isolate_jobs: key
clients:
  allow_unauthorized_requests: true
  cors_allowed_origins: ["https://app.example"]
  anonymous: {limits: [{name: a, unit: requests, quota: 1, window: 90}]}
teams:
  - id: design
    limits:
      - {name: submits, unit: requests, class: paid, quota: 60, window: 60s, burst: 10, max_wait: 500ms, shadow: true}
      - {name: parallel, unit: concurrent-requests, quota: 8}
    fal_key_env: FAL_KEY_DESIGN
    budgets: [{usd: "0.000000001", period: day, warn_at: [0.5, 1]}]
  - {id: other, fal_key_file: /run/secrets/fal}
keys:
  - id: web
    team: design
    digests: ["sha256:0A0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a"]
    expires_at: 2027-01-01T01:00:00.5+01:00
    allowed_endpoints: ["fal-ai/flux/**"]
    budgets: [{usd: 999999999, period: month}]
    max_body_bytes: 1000
    realtime: {mode: refuse}
attribution: {fal_tags: true}
prices:
  - {endpoint: a/b, unit: image, usd: "0.0250", typical_units: "1.5"}
  - {endpoint: a/c, unit: second, usd: "0"}
price_source: fal
on_state_loss: local
unpriced_endpoints: allow
max_share: 0.25
realtime: {mode: allow, max_token_seconds: 60}
settle_deadline: 36h
budget_webhook: {url: "https://h/x", secret_env: HOOK}
"""


def test_every_field_arrives_as_it_was() -> None:
    """Amounts to the last digit, moments, durations, aliases: the document behind the JSON is the same."""
    document = Document.model_validate(yaml.safe_load(WHOLE))
    sent = PolicySnapshot(document=document, team_keys={"design": "id:secret"}, source="ab")
    assert edition_of(sent.to_json()) == sent
    fields = {name for name in Document.model_fields if getattr(document, name) != getattr(Document(), name)}
    assert fields == set(Document.model_fields)  # the text above leaves nothing at its default


def test_an_empty_policy_arrives_empty() -> None:
    """What the file leaves out is left out, and reads as the default on the other side."""
    sent = PolicySnapshot(document=Document(), team_keys={}, source="")
    assert sent.to_json() == b'{"document":{},"team_keys":{},"source":""}'
    assert edition_of(sent.to_json()) == sent


def test_a_credential_is_not_shown() -> None:
    """Neither the text of an edition nor the complaint over a broken one holds a credential."""
    edition = PolicySnapshot(document=Document(), team_keys={"t": "canary"}, source="")
    assert "canary" not in f"{edition!r} {edition}"
