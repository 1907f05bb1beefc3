"""The snippets of a page of documentation, in order, and what it links to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

_FENCE = re.compile(r"```(\w*)")
_NOT_RUN = re.compile(r"<!-- not run: (.+) -->")
_LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")


@dataclass(frozen=True)
class Snippet:
    """`reason`: why it cannot be run here, as the page says in a comment before it; '' where it can."""

    page: Path
    line: int
    language: str
    text: str
    reason: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def guides() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs" / "guide").glob("*.md"))]


def snippets(page: Path) -> Iterator[Snippet]:
    lines = iter(enumerate(page.read_text("utf-8").splitlines(), 1))
    reason = ""
    for number, line in lines:
        if opened := _FENCE.fullmatch(line):
            text = []
            for _, inner in lines:
                if inner == "```":
                    break
                text.append(inner)
            yield Snippet(page, number, opened[1], "\n".join(text) + "\n", reason)
        found = _NOT_RUN.fullmatch(line)
        reason = found[1] if found else ""


def links(page: Path) -> list[Path]:
    """The files of this repository that it links to."""
    targets = _LINK.findall(page.read_text("utf-8"))
    return [(page.parent / target).resolve() for target in targets if "://" not in target]
