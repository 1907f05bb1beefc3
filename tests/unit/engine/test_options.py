"""Load options to llama.cpp's parameters."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from puna.engine.llama.options import Parameters, can_repeat, flags, parameters, wheel
from puna.engine.runner import LoadOptions, ModelFiles

FILES = ModelFiles(Path("/m.gguf"), "", "llama", "Q4_1")
LOAD = LoadOptions(num_ctx=1000, slots=4)


def made(load: LoadOptions = LOAD, files: ModelFiles = FILES) -> Parameters:
    return parameters(files, load, cores=6, socket=Path("/d/runner.sock"))


def value(words: list[str], flag: str) -> str:
    return words[words.index(flag) + 1]


def test_each_slot_has_the_whole_context() -> None:
    assert wheel(made())["n_ctx"] == 4000
    assert wheel(made())["kv_unified"] is False
    assert value(flags(made()), "--ctx-size") == "4000"
    assert "--no-kv-unified" in flags(made())


def test_nothing_may_change_what_was_asked_for() -> None:
    values, words = wheel(made()), flags(made())
    assert (values["fit_params"], values["ctx_shift"], values["cache_ram_mib"]) == (False, False, 0)
    assert (value(words, "--fit"), value(words, "--cache-ram")) == ("off", "0")
    assert "--no-context-shift" in words


def test_the_models_own_template_is_not_read() -> None:
    values, words = wheel(made()), flags(made())
    assert (values["use_jinja"], values["chat_template"]) == (False, "chatml")
    assert "--no-jinja" in words
    assert value(words, "--chat-template") == "chatml"


def test_threads_are_the_cores_unless_said() -> None:
    assert wheel(made())["cpuparams.n_threads"] == 6
    assert wheel(made(replace(LOAD, num_thread=2)))["cpuparams.n_threads"] == 2
    assert value(flags(made(replace(LOAD, num_thread=2))), "--threads") == "2"


def test_streams_do_not_use_up_the_http_threads() -> None:
    assert made().http_threads > 4 + 8
    assert value(flags(made()), "--threads-http") == str(made().http_threads)


def test_what_is_not_said_is_left_to_the_engine() -> None:
    values, words = wheel(made()), flags(made())
    assert not {"n_gpu_layers", "main_gpu", "load_mode", "pooling_type", "mmproj.path", "lora_adapters"} & set(values)
    assert not {"--gpu-layers", "--main-gpu", "--load-mode", "--pooling", "--mmproj", "--lora"} & set(words)


def test_what_is_said_is_passed_on() -> None:
    said = replace(LOAD, num_gpu=7, main_gpu=1, use_mmap=False, flash_attention=True, cache_type="q8_0")
    files = replace(FILES, projectors=(Path("/p.gguf"),), adapters=(Path("/a.gguf"), Path("/b.gguf")))
    values, words = wheel(made(said, files)), flags(made(said, files))
    assert (values["n_gpu_layers"], values["main_gpu"], values["load_mode"], values["flash_attn_type"]) == (7, 1, 0, 1)
    assert (values["cache_type_k"], values["cache_type_v"]) == (8, 8)
    assert (values["mmproj.path"], values["lora_adapters"]) == ("/p.gguf", ["/a.gguf", "/b.gguf"])
    expected = {
        "--gpu-layers": "7", "--main-gpu": "1", "--load-mode": "none", "--flash-attn": "on", "--cache-type-k": "q8_0",
        "--mmproj": "/p.gguf", "--lora": "/a.gguf,/b.gguf",
    }  # fmt: skip
    assert {flag: value(words, flag) for flag in expected} == expected


def test_an_input_to_embed_fits_one_batch() -> None:
    load = replace(LOAD, embedding=True, slots=1)
    values = wheel(made(load))
    assert (values["n_batch"], values["n_ubatch"], values["pooling_type"]) == (1000, 1000, 1)
    assert "pooling_type" not in wheel(made(load, replace(FILES, pooled=True)))
    assert "--embedding" in flags(made(load))
    assert value(flags(made(load)), "--pooling") == "mean"


@pytest.mark.parametrize(
    ("types", "lengths", "can"),
    [
        ({"Q4_1", "Q8_0"}, (None, None), True),
        ({"F32", "Q8_0"}, (None, None), False),
        ({"Q4_0"}, (64, 64), True),
        ({"Q4_0"}, (192, 128), False),
        ({"Q4_0", "Q6_K"}, (None, None), False),
        ({"BF16"}, (None, None), False),
    ],
)
def test_models_whose_seeds_can_repeat(types: set[str], lengths: tuple[int | None, int | None], can: bool) -> None:
    assert can_repeat(frozenset(types), *lengths) is can


@pytest.mark.parametrize(
    ("load", "exact", "cpu_only", "cache_type"),
    [
        (LOAD, True, True, "bf16"),
        (replace(LOAD, num_gpu=0), True, False, "bf16"),
        (replace(LOAD, flash_attention=True), True, True, "bf16"),
        (replace(LOAD, cache_type="q8_0"), True, True, "q8_0"),
        (LOAD, False, True, None),
        (LOAD, True, False, None),
        (replace(LOAD, flash_attention=False), True, True, None),
        (replace(LOAD, cache_type="f16"), True, True, None),
        (replace(LOAD, embedding=True), True, True, None),
    ],
)
def test_seeds_repeat_where_they_can_and_nothing_else_was_asked_for(
    load: LoadOptions, exact: bool, cpu_only: bool, cache_type: str | None
) -> None:
    started = parameters(FILES, load, cores=2, socket=Path("/s"), cpu_only=cpu_only, exact=exact)
    assert started.repeats is (cache_type is not None)
    if started.repeats:
        assert (started.flash_attention, started.cache_type) == (True, cache_type)
        assert wheel(started)["cache_type_k"] == {"bf16": 30, "q8_0": 8}[started.cache_type]
        assert value(flags(started), "--cache-type-v") == cache_type
    else:
        assert started.flash_attention is load.flash_attention
        assert started.cache_type == (load.cache_type or "f16")


def test_batches_are_short_where_they_take_long() -> None:
    def batches(load: LoadOptions, cpu_only: bool) -> tuple[int, int]:
        started = parameters(FILES, load, cores=2, socket=Path("/s"), cpu_only=cpu_only)
        return started.batch, started.physical_batch

    assert batches(LOAD, True) == (64, 64)
    assert batches(LOAD, False) == (2048, 512)
    assert batches(replace(LOAD, num_batch=1024), True) == (1024, 512)
    assert batches(replace(LOAD, num_batch=2, slots=8), True) == (8, 8)


def test_images_whose_tokens_see_each_other_are_computed_whole() -> None:
    files = replace(FILES, projectors=(Path("/p.gguf"),))
    for load in (LOAD, replace(LOAD, num_batch=64), replace(LOAD, num_gpu=9)):
        values = wheel(parameters(files, load, cores=6, socket=Path("/s"), cpu_only=False, whole_images=True))
        assert (values["n_batch"], values["n_ubatch"]) == (2048, 2048)
    large = replace(LOAD, num_batch=4096)
    assert wheel(parameters(files, large, cores=6, socket=Path("/s"), whole_images=True))["n_batch"] == 4096
    assert wheel(parameters(files, LOAD, cores=6, socket=Path("/s")))["n_batch"] == 64


def test_no_bytes_of_strangers_go_to_other_programs() -> None:
    files = replace(FILES, projectors=(Path("/p.gguf"),))
    assert wheel(made(LOAD, files))["video_ffmpeg_bin_dir"] == os.devnull
