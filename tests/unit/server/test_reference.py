"""docs/reference/openai.md is what the contract says now."""

from __future__ import annotations

from pathlib import Path

from puna.server.openai.reference import reference

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "openai.md"


def test_the_page_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == reference()
