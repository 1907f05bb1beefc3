"""Write docs/reference/settings.md from the rows of `puna.settings`. `--check`: only tell whether it is up to date."""

from __future__ import annotations

import sys
from pathlib import Path

from puna.settings import ROWS, Row

TARGET = Path(__file__).parent / "reference" / "settings.md"

HEAD = """\
# Settings

Generated from `puna.settings` by `python docs/generate_settings.py`; edit it there.

Settings are environment variables, read once when `puna` starts. A `PUNA_` name wins over the `OLLAMA_` name beside
it, so what is set for Ollama works here. An empty value counts as absent. A value that cannot be read stops the start
and names the variable: no setting falls back to its default in silence.

Durations are Go's (`300ms`, `5m`, `1h30m`) or whole seconds; negative means for ever.

| variable | also read as | value | meaning |
|---|---|---|---|
"""


def table_row(row: Row) -> str:
    first, *others = (f"`{name}`" for name in row.names)
    cells = (first, ", ".join(others), row.expected, row.doc)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def reference() -> str:
    """The whole page."""
    return HEAD + "\n".join(table_row(row) for row in ROWS) + "\n"


def main(arguments: list[str]) -> int:
    if arguments == ["--check"]:
        current = TARGET.is_file() and TARGET.read_text(encoding="utf-8") == reference()
        if not current:
            print(f"{TARGET} is out of date: run python docs/generate_settings.py", file=sys.stderr)  # noqa: T201
        return 0 if current else 1
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(reference(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
