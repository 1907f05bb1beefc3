"""Settings that are none are told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from puna import places
from puna.settings import ROWS, ModelPolicy, SettingError, Settings, unknown


def test_what_is_named_like_a_setting_and_is_none() -> None:
    assert unknown({"PUNA_CPU_EXACT": "1", "PUNA_HOTS": "x", "OLLAMA_HOTS": "x", "PATH": "/"}) == (
        "PUNA_CPU_EXACT",
        "PUNA_HOTS",
    )


def test_settings_and_what_puna_tells_its_children_are_known() -> None:
    known = {name: "x" for row in ROWS for name in row.names}
    assert unknown(known | {"PUNA_PARENT": "1", "PUNA_TEST_GGUF": "x", "PUNA_X": ""}) == ()


def test_the_cache_lies_with_the_users_others_unless_it_is_told(tmp_path: Path) -> None:
    plain = Settings.from_environment({"PUNA_MODELS": "x"})
    assert plain.cache_dir == places.cache()
    assert plain.cache_disk == 4 << 30
    told = Settings.from_environment({"PUNA_MODELS": "x", "PUNA_CACHE_DIR": str(tmp_path), "PUNA_CACHE_DISK": "0"})
    assert (told.cache_dir, told.cache_disk) == (tmp_path, 0)


def test_of_several_stores_the_first_is_written(tmp_path: Path) -> None:
    names = [str(tmp_path / name) for name in "abc"]
    settings = Settings.from_environment({"PUNA_MODELS": os.pathsep.join(names[:2]), "PUNA_READ_ONLY_MODELS": names[2]})
    assert settings.models == tmp_path / "a"
    assert settings.read_only_models == (tmp_path / "b", tmp_path / "c")


def test_policies_of_models() -> None:
    text = "qwen3:4b pin priority=2; gemma* parallel=2 max_ctx=8192 keep_alive=1h ;"
    read = Settings.from_environment({"PUNA_MODELS": "x", "PUNA_MODEL_POLICY": text})
    assert read.model_policies == (
        ModelPolicy("qwen3:4b", pin=True, priority=2),
        ModelPolicy("gemma*", parallel=2, max_ctx=8192, keep_alive=3600.0),
    )
    assert read.policy_of("gemma3:latest").max_ctx == 8192
    assert read.policy_of("other:latest") == ModelPolicy()
    exact = Settings(models=Path("x"), model_policies=(ModelPolicy("tiny", pin=True),))
    assert exact.policy_of("tiny:latest").pin
    assert not exact.policy_of("tiny:1b").pin


@pytest.mark.parametrize(
    "text", ["tiny", "tiny pin=1", "tiny parallel", "tiny parallel=0", "tiny size=3", "pin=1 pin", "a pin pin"]
)
def test_policies_that_are_none(text: str) -> None:
    with pytest.raises(SettingError, match="PUNA_MODEL_POLICY"):
        Settings.from_environment({"PUNA_MODELS": "x", "PUNA_MODEL_POLICY": text})
