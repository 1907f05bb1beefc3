"""What a source has against what is stored."""

from __future__ import annotations

import pytest

from puna.model.digest import Digest
from puna.model.name import Name
from puna.sources.freshness import Standing, compare
from puna.sources.source import Offer
from puna.store.pulls import Pulled

A, B = Digest("aa" * 32), Digest("bb" * 32)


def pulled(manifest: Digest, revision: str | None = None) -> Pulled:
    return Pulled(source="there", manifest=manifest, revision=revision)


@pytest.mark.parametrize(
    ("noted", "manifest", "revision", "state"),
    [
        (None, A, None, "current"),
        (pulled(B), A, None, "current"),
        (pulled(A), B, None, "outdated"),
        (None, B, None, "own"),
        (pulled(B), B, None, "own"),
        (pulled(A, "1"), None, "1", "current"),
        (pulled(A, "1"), None, "2", "outdated"),
        (pulled(A, "1"), None, None, "unknown"),
        (pulled(A), None, "1", "unknown"),
        (pulled(B, "1"), None, "2", "own"),
        (None, None, "1", "own"),
    ],
)
def test_states(noted: Pulled | None, manifest: Digest | None, revision: str | None, state: Standing) -> None:
    """`A` is stored."""
    found = compare(Name.parse("m"), A, noted, Offer(source="there", manifest=manifest, revision=revision))
    assert found.state == state
    assert bool(found.reason) == (state != "current")
