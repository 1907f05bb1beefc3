"""The pages of documentation: every one can be found from the README, and no link leads nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakes.pages import ROOT, guides, links, snippets

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    assert [target for target in links(page) if not target.exists()] == []


def test_the_readme_links_all_of_docs() -> None:
    linked = set(links(ROOT / "README.md"))
    assert [
        page for page in PAGES if page not in linked and not linked & set(page.parents) and page.name != "README.md"
    ] == []


def test_what_is_not_run_says_why() -> None:
    """And what can be run is in a language that the snippets' test knows."""
    for page in guides():
        for snippet in snippets(page):
            assert snippet.reason or snippet.language in {"sh", "python", "javascript"}, str(snippet)


def test_one_name_throughout() -> None:
    """The model that the README pulls is the one that every page asks for."""
    text = (ROOT / "README.md").read_text("utf-8")
    assert "smollm2:135m" not in text
    assert "puna run smollm2 " in text
