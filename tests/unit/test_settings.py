"""Settings that are none are told."""

from __future__ import annotations

import os
from pathlib import Path

from puna.settings import ROWS, Settings, unknown


def test_what_is_named_like_a_setting_and_is_none() -> None:
    assert unknown({"PUNA_CPU_EXACT": "1", "PUNA_HOTS": "x", "OLLAMA_HOTS": "x", "PATH": "/"}) == (
        "PUNA_CPU_EXACT",
        "PUNA_HOTS",
    )


def test_settings_and_what_puna_tells_its_children_are_known() -> None:
    known = {name: "x" for row in ROWS for name in row.names}
    assert unknown(known | {"PUNA_PARENT": "1", "PUNA_TEST_GGUF": "x", "PUNA_X": ""}) == ()


def test_of_several_stores_the_first_is_written(tmp_path: Path) -> None:
    names = [str(tmp_path / name) for name in "abc"]
    settings = Settings.from_environment({"PUNA_MODELS": os.pathsep.join(names[:2]), "PUNA_READ_ONLY_MODELS": names[2]})
    assert settings.models == tmp_path / "a"
    assert settings.read_only_models == (tmp_path / "b", tmp_path / "c")
