"""Modelfiles, before a server is asked."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from puna.cli.create import adapter_files, read_modelfile
from puna.cli.files import base_files
from puna.cli.upload import check_kind
from puna.errors import InvalidRequest, NotFound, PunaError, Unsupported


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("FROM x\nPARAMETER wat 1\n", "unknown parameter 'wat'"),
        ("FROM x\nPARAMETER temperature hot\n", "temperature"),
        ("WAT x\n", r"\(line 1\): command must be one of"),
        ("SYSTEM x\n", "no FROM line"),
        ("FROM x\nDRAFT ./y.gguf\n", "DRAFT is not supported"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, error: str) -> None:
    path = tmp_path / "Modelfile"
    path.write_text(text)
    with pytest.raises(PunaError, match=error):
        read_modelfile(path)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "Modelfile"
    path.write_bytes(b"FROM \xff\xff\xff")
    with pytest.raises(InvalidRequest, match="not text"):
        read_modelfile(path)


def test_nothing_takes_the_place_of_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such Modelfile"):
        read_modelfile(tmp_path / "missing")


def test_a_parameter_without_effect_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "Modelfile"
    path.write_text("FROM x\nPARAMETER low_vram true\n")
    read_modelfile(path)
    assert "low_vram has no effect" in capsys.readouterr().err


def test_from_is_a_file_beside_the_modelfile_or_a_name(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    (tmp_path / "smollm2").mkdir()
    assert base_files("./x.gguf", tmp_path) == {"x.gguf": tmp_path / "x.gguf"}
    assert base_files(str(tmp_path / "x.gguf"), Path("elsewhere")) == {"x.gguf": tmp_path / "x.gguf"}
    assert base_files("smollm2:135m", tmp_path) is None
    # Ollama takes a directory of that name instead of the model.
    assert base_files("smollm2", tmp_path) is None
    with pytest.raises(NotFound):
        base_files("./y.gguf", tmp_path)
    with pytest.raises(NotFound):
        base_files("y.gguf", tmp_path)
    with pytest.raises(NotFound, match="no GGUF and no safetensors files"):
        base_files("./smollm2", tmp_path)


def test_from_a_first_shard_or_a_directory_is_all_of_them(tmp_path: Path) -> None:
    paths = [tmp_path / f"m-{number:05}-of-00003.gguf" for number in (1, 2, 3)]
    for path in paths:
        path.write_bytes(b"GGUF")
    named = {path.name: path for path in paths}
    assert base_files("./m-00001-of-00003.gguf", tmp_path) == named
    assert base_files(".", tmp_path) == named
    assert base_files("m-00002-of-00003.gguf", tmp_path) == {paths[1].name: paths[1]}
    paths[1].unlink()
    with pytest.raises(NotFound, match="is one of 3 files, and not there are: m-00002-of-00003.gguf"):
        base_files("./m-00001-of-00003.gguf", tmp_path)


def test_from_a_directory_as_it_is_published(tmp_path: Path) -> None:
    (tmp_path / "1_Pooling").mkdir()
    for name in ("model.safetensors", "config.json", "1_Pooling/config.json", "README.md", "adapter_model.safetensors"):
        (tmp_path / name).write_bytes(b"{}")
    (tmp_path / "also.gguf").write_bytes(b"GGUF")
    assert list(base_files(".", tmp_path) or ()) == ["model.safetensors", "config.json", "1_Pooling/config.json"]


def test_an_adapter_is_a_file_or_what_peft_writes(tmp_path: Path) -> None:
    lora = tmp_path / "lora"
    lora.mkdir()
    with pytest.raises(NotFound, match=r"no adapter_model\.safetensors"):
        adapter_files("lora", tmp_path)
    (lora / "adapter_model.bin").write_bytes(b"x")
    with pytest.raises(Unsupported, match="is a pickle"):
        adapter_files("lora", tmp_path)
    (lora / "adapter_model.safetensors").write_bytes(b"{}")
    for text in ("./lora", "lora/adapter_model.safetensors"):
        with pytest.raises(NotFound, match=r"no adapter_config\.json"):
            adapter_files(text, tmp_path)
    (lora / "adapter_config.json").write_bytes(b"{}")
    for text in ("./lora", "lora/adapter_model.safetensors", str(lora)):
        assert list(adapter_files(text, tmp_path)) == ["adapter_config.json", "adapter_model.safetensors"]
    with pytest.raises(InvalidRequest, match="is not a file"):
        adapter_files("none.gguf", tmp_path)
    (tmp_path / "lora.gguf").write_bytes(b"GGUF")
    assert adapter_files("lora.gguf", tmp_path) == {"lora.gguf": tmp_path / "lora.gguf"}


@pytest.mark.parametrize(
    ("name", "start", "told"),
    [
        ("a.gguf", b"GGML", "not a GGUF file"),
        ("a.safetensors", b"", "not a safetensors file"),
        ("a.safetensors", (2**40).to_bytes(8, "little"), "not a safetensors file"),
    ],
)
def test_what_a_file_is_is_seen_before_it_is_read(tmp_path: Path, name: str, start: bytes, told: str) -> None:
    path = tmp_path / name
    path.write_bytes(start)
    os.truncate(path, 1 << 40)  # a terabyte, of holes
    with pytest.raises(Unsupported, match=told):
        check_kind(path)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="a file of Linux")
def test_a_file_that_the_system_does_not_let_read_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="cannot be read"):
        check_kind(Path("/proc/self/mem"))
