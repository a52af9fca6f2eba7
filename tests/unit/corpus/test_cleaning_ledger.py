"""The ledger's count of changed documents, and that it changes nothing that was stored before it existed."""

from __future__ import annotations

from lmbatch.config import identity
from lmbatch.store import Ledger


def test_changes_are_no_part_of_the_sum() -> None:
    ledger = Ledger(records=2, documents={"train": 2}, changed={"html": 2, "unicode": 1})
    assert ledger.missing == 0
    assert Ledger(records=1, changed={"html": 1}).missing == 1


def test_changes_add_up_in_sorted_order() -> None:
    total = Ledger.total([Ledger(changed={"urls": 1}), Ledger(changed={"html": 2, "urls": 3}), Ledger()])
    assert list(total.changed.items()) == [("html", 2), ("urls", 4)]


def test_changes_are_part_of_the_identity_where_there_are_any() -> None:
    assert identity(Ledger(changed={"html": 1}))["changed"] == {"html": 1}
    assert "changed" not in identity(Ledger())


def test_a_ledger_from_before_is_read() -> None:
    assert Ledger.model_validate({"records": 0, "documents": {}, "dropped": {}, "quarantined": {}}).changed == {}
