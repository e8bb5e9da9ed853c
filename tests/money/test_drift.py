"""What is shown of a comparison with fal's bill: the last one's findings, and nothing of those before."""

from __future__ import annotations

from gateway.money.reconcile.compare import Drift
from gateway.processes.overseer import drift_by_label


def label_of(endpoint: str) -> str:
    """Return the label of an endpoint, of which only one has its own."""
    return endpoint if endpoint == "fal-ai/flux/dev" else "other"


def test_a_drift_is_that_of_the_last_comparison() -> None:
    """An endpoint of which the bill says nothing any more has no drift; it was not there, and it is not unknown."""
    first = drift_by_label({"fal-ai/flux/dev": Drift(ours_ns=5, true_ns=8)}, label_of, shown=())
    assert first == {"fal-ai/flux/dev": 3}
    assert drift_by_label({}, label_of, shown=first) == {"fal-ai/flux/dev": 0}


def test_endpoints_of_one_label_are_added_up() -> None:
    """None of them hides another behind the label that they share."""
    found = {"shop/a": Drift(ours_ns=5, true_ns=8), "shop/b": Drift(ours_ns=9, true_ns=8)}
    assert drift_by_label(found, label_of, shown=("fal-ai/flux/dev",)) == {"fal-ai/flux/dev": 0, "other": 2}
