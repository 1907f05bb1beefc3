"""Settings that are none are told."""

from __future__ import annotations

from puna.settings import ROWS, unknown


def test_what_is_named_like_a_setting_and_is_none() -> None:
    assert unknown({"PUNA_CPU_EXACT": "1", "PUNA_HOTS": "x", "OLLAMA_HOTS": "x", "PATH": "/"}) == (
        "PUNA_CPU_EXACT",
        "PUNA_HOTS",
    )


def test_settings_and_what_puna_tells_its_children_are_known() -> None:
    known = {name: "x" for row in ROWS for name in row.names}
    assert unknown(known | {"PUNA_PARENT": "1", "PUNA_TEST_GGUF": "x", "PUNA_X": ""}) == ()
