"""docs/reference/settings.md says what the settings are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parents[3] / "docs"


def test_the_page_is_up_to_date() -> None:
    result = subprocess.run(
        [sys.executable, DOCS / "generate_settings.py", "--check"], capture_output=True, text=True, timeout=30
    )
    assert result.returncode == 0, result.stderr


def test_an_old_page_is_noticed(tmp_path: Path) -> None:
    script = tmp_path / "generate_settings.py"
    script.write_text((DOCS / "generate_settings.py").read_text())
    (tmp_path / "reference").mkdir()
    (tmp_path / "reference" / "settings.md").write_text("old")
    assert subprocess.run([sys.executable, script, "--check"], capture_output=True, timeout=30).returncode == 1
    assert subprocess.run([sys.executable, script], timeout=30).returncode == 0
    assert subprocess.run([sys.executable, script, "--check"], timeout=30).returncode == 0
