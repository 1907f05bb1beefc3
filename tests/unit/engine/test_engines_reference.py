"""docs/reference/engines.md says what the engines say of themselves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parents[3] / "docs"


def test_the_table_is_up_to_date() -> None:
    result = subprocess.run(
        [sys.executable, DOCS / "generate_engines.py", "--check"], capture_output=True, text=True, timeout=30
    )
    assert result.returncode == 0, result.stderr


def test_an_old_table_is_noticed(tmp_path: Path) -> None:
    script, page = tmp_path / "generate_engines.py", tmp_path / "reference" / "engines.md"
    script.write_text((DOCS / "generate_engines.py").read_text(encoding="utf-8"), encoding="utf-8")
    page.parent.mkdir()
    good = (DOCS / "reference" / "engines.md").read_text(encoding="utf-8")
    page.write_text(good.replace("| embeddings | –", "| embeddings | yes"), encoding="utf-8")
    assert subprocess.run([sys.executable, script, "--check"], capture_output=True, timeout=30).returncode == 1
    assert subprocess.run([sys.executable, script], timeout=30).returncode == 0
    assert page.read_text(encoding="utf-8") == good
