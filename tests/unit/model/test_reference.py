"""A Name, and perhaps which manifest is meant under it."""

from __future__ import annotations

import pytest

from puna.errors import InvalidName
from puna.model.digest import Digest
from puna.model.name import Name
from puna.model.reference import Reference

HEX = "ab" * 32


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("smollm2", Reference(Name.parse("smollm2"))),
        (f"smollm2@sha256:{HEX}", Reference(Name.parse("smollm2"), Digest(HEX))),
        (f" a.b:5000/c/d:e@SHA256-{HEX.upper()} ", Reference(Name.parse("a.b:5000/c/d:e"), Digest(HEX))),
    ],
)
def test_references(text: str, expected: Reference) -> None:
    assert Reference.parse(text) == expected
    assert Reference.parse(expected.short) == expected


@pytest.mark.parametrize(
    "text", ["", "@", f"@sha256:{HEX}", "a@", "a@b", "a@sha256:", f"a@sha256:{HEX[:-1]}", f"a@sha256:{HEX}0", "a@b@c"]
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(InvalidName, match="invalid model name") as caught:
        Reference.parse(text, param="source")
    assert caught.value.param == "source"
