from __future__ import annotations

import math

import pytest

from puna.engine.cpu.shape import Dimensions, LayerKind, LinearShape, read_shape
from puna.errors import ModelFileError
from puna.model.gguf import Header
from puna.model.metadata import MetadataValue

FACTS: dict[str, MetadataValue] = {
    "block_count": 6,
    "context_length": 4096,
    "embedding_length": 256,
    "feed_forward_length": 512,
    "attention.head_count": 4,
    "attention.layer_norm_rms_epsilon": 1e-5,
}


def shape(family: str, **more: MetadataValue) -> Dimensions:
    facts = FACTS | {key.replace("__", "."): value for key, value in more.items()}
    metadata = {f"{family}.{key}": value for key, value in facts.items()}
    return read_shape(Header(version=3, architecture=family, metadata=metadata, tensors=()))


def test_what_a_file_does_not_say_follows_from_what_it_says() -> None:
    found = shape("llama")
    assert (found.kv_heads, found.head_size, found.rotary, found.attention_scale) == (4, 64, 64, 1 / math.sqrt(64))
    assert (found.embedding_scale, found.residual_scale, found.logit_divisor, found.logit_cap) == (1, 1, 1, 0)
    assert all(layer.window == 0 and layer.turned for layer in found.layers)


def test_windows_lie_where_the_family_has_them() -> None:
    assert [layer.window for layer in shape("gemma2").layers] == [4096, 0] * 3
    assert [layer.window for layer in shape("gemma3", attention__sliding_window=512).layers] == [512] * 5 + [0]
    oss = shape(
        "gpt-oss", attention__sliding_window=128, expert_count=4, expert_used_count=2, expert_feed_forward_length=64
    )
    assert [layer.window for layer in oss.layers] == [128, 0] * 3
    assert (oss.experts, oss.used, oss.feed_forward) == (4, 2, 64)
    with pytest.raises(ModelFileError, match="sliding_window"):
        shape("gemma3")


def test_every_fourth_layer_of_smollm3_is_not_told_positions() -> None:
    assert [layer.turned for layer in shape("smollm3").layers] == [True, True, True, False, True, True]


def test_layers_of_lfm2_without_heads_of_keys_convolve() -> None:
    found = shape("lfm2", attention__head_count_kv=(0, 2, 0, 0, 2, 0), shortconv__l_cache=3)
    assert [layer.kind is LayerKind.ATTENTION for layer in found.layers] == [False, True, False, False, True, False]
    assert (found.kv_heads, found.taps) == (2, 3)
    assert {layer.kind for layer in shape("lfm2", attention__head_count_kv=2, shortconv__l_cache=3).layers} == {
        LayerKind.ATTENTION
    }


@pytest.mark.parametrize("heads", [(0,) * 6, (2, 4, 0, 0, 2, 0), (2, 0), (2, -2, 0, 0, 2, 0), (2, True, 0), "x"])
def test_heads_of_keys_that_go_together_with_nothing(heads: MetadataValue) -> None:
    with pytest.raises(ModelFileError, match=r"heads of keys|head_count_kv"):
        shape("lfm2", attention__head_count_kv=heads, shortconv__l_cache=3)


SSM: dict[str, MetadataValue] = {
    "ssm__conv_kernel": 4,
    "ssm__state_size": 32,
    "ssm__group_count": 2,
    "ssm__time_step_rank": 4,
    "ssm__inner_size": 128,
}


def test_qwen35_attends_in_each_fourth_layer() -> None:
    found = shape("qwen35", **SSM)
    attend = [layer.kind is LayerKind.ATTENTION for layer in found.layers]
    assert attend == [False, False, False, True, False, False]
    assert (found.taps, found.linear) == (4, LinearShape(keys=2, values=4, size=32))
    assert shape("qwen35", full_attention_interval=2, **SSM).layers[1].kind is LayerKind.ATTENTION


def test_blocks_that_foretell_tokens_are_no_layers() -> None:
    found = shape("qwen35", nextn_predict_layers=2, **SSM)
    assert (len(found.layers), found.further) == (4, 2)
    with pytest.raises(ModelFileError, match="layers"):
        shape("qwen35", nextn_predict_layers=6, **SSM)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ssm__group_count", 3),
        ("ssm__inner_size", 96),
        ("ssm__time_step_rank", 0),
        ("ssm__conv_kernel", "x"),
        ("full_attention_interval", -1),
        ("nextn_predict_layers", -1),
    ],
)
def test_numbers_of_linear_attention_that_go_together_with_nothing(key: str, value: MetadataValue) -> None:
    with pytest.raises(ModelFileError, match=key.replace("__", ".") if value in (0, -1, "x") else "heads of values"):
        shape("qwen35", **SSM | {key: value})


def test_gemma_turns_near_layers_by_a_base_of_their_own_unscaled() -> None:
    found = shape("gemma3", attention__sliding_window=512, rope__freq_base=1e6, rope__scaling__factor=8.0)
    assert (found.window_base, found.window_scaling.factor) == (10000.0, 1.0)
    assert (found.rope_base, found.rope_scaling.factor) == (1e6, 8.0)


def test_scales_and_caps_are_those_of_the_family() -> None:
    granite = shape("granite", embedding_scale=12.0, residual_scale=0.22, logit_scale=8.0, attention__scale=0.0156)
    assert (granite.embedding_scale, granite.residual_scale, granite.logit_divisor) == (12.0, 0.22, 8.0)
    assert granite.attention_scale == 0.0156
    gemma = shape("gemma2")
    assert (gemma.embedding_scale, gemma.attention_cap, gemma.logit_cap) == (16.0, 50.0, 30.0)
    assert shape("gemma2", block_count=46).attention_scale == 1 / math.sqrt(256 // 4)


@pytest.mark.parametrize(
    ("key", "value", "word"),
    [
        ("block_count", 0, "block_count"),
        ("block_count", True, "block_count"),
        ("embedding_length", "wide", "embedding_length"),
        ("attention__head_count_kv", 3, "heads of keys"),
        ("rope__dimension_count", 63, "rotates"),
        ("rope__dimension_count", 128, "rotates"),
        ("rope__freq_base", math.nan, "freq_base"),
        ("rope__freq_base", 1.0, "freq_base"),
        ("rope__scaling__factor", -2.0, "squeezes"),
        ("attention__layer_norm_rms_epsilon", math.inf, "epsilon"),
        ("feed_forward_length", 1 << 40, "feed_forward_length"),
    ],
)
def test_numbers_of_no_use_are_named(key: str, value: MetadataValue, word: str) -> None:
    with pytest.raises(ModelFileError, match=word):
        shape("llama", **{key: value})
