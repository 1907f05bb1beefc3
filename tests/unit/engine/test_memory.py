"""Estimates of memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from puna.engine.cpu.profile import COSTS as CPU
from puna.engine.llama.profile import COSTS as LLAMA
from puna.engine.memory import ROWS, Costs, Estimate, ModelLayout, encoding, shape
from puna.engine.memory import estimate as estimate_for
from puna.engine.runner import LoadOptions

LOAD = LoadOptions(num_ctx=4096, slots=4, cache_type="f16")
SMALL = shape(weights=98_000_000, vocabulary=49152, embedding=576, blocks=30, heads=9, kv_heads=3)


def estimate(layout: ModelLayout, load: LoadOptions, costs: Costs = LLAMA) -> Estimate:
    return estimate_for(layout, load, costs)


def test_the_cache_is_a_key_and_a_value_of_every_layer_and_place() -> None:
    # llama.cpp itself says of this model: 1024 places, 30 layers: 22.5 MiB.
    assert estimate(SMALL, LoadOptions(num_ctx=1024, slots=1, cache_type="f16")).cache == int(22.5 * 2**20)
    assert estimate(SMALL, LOAD).cache == 16 * int(22.5 * 2**20)


def test_a_smaller_type_of_cache_takes_less() -> None:
    full = estimate(SMALL, LOAD).cache
    assert estimate(SMALL, replace(LOAD, cache_type="q8_0")).cache == full * 17 // 32
    assert estimate(SMALL, replace(LOAD, cache_type=None)).cache == full
    assert estimate(SMALL, replace(LOAD, cache_type="q4_0")).cache == full * 9 // 32


def test_an_engine_may_keep_weights_wider_and_a_cache_of_its_own() -> None:
    ours, theirs = estimate(SMALL, LOAD, CPU), estimate(SMALL, LOAD)
    assert ours.weights > theirs.weights
    assert ours.cache == theirs.cache
    in_bytes = replace(CPU, value=72 / 64)
    assert estimate(SMALL, replace(LOAD, cache_type="q4_0"), in_bytes).cache == theirs.cache * 9 // 16


def test_layers_may_differ() -> None:
    mixed = shape(weights=0, vocabulary=0, embedding=64, blocks=3, heads=4, kv_heads=(4, 0, 2))
    assert estimate(mixed, LoadOptions(num_ctx=10, slots=1, cache_type="f16")).cache == 6 * 32 * 10 * 2


def test_layers_without_keys_may_keep_something_else() -> None:
    mixed = shape(weights=0, vocabulary=0, embedding=64, blocks=3, heads=4, kv_heads=(0, 4, 0))
    load = LoadOptions(num_ctx=10, slots=2, cache_type="f16")
    assert estimate(mixed, load).cache == 4 * 32 * 20 * 2
    assert estimate(mixed, load, CPU).cache == 4 * 32 * 20 * 2 + 2 * 64 * 20 * 2


def test_states_are_a_sequences_and_the_rest_a_tokens() -> None:
    mixed = shape(
        weights=0, vocabulary=0, embedding=64, blocks=4, heads=4, kv_heads=4, interval=2, channels=100, state=1000
    )
    load = LoadOptions(num_ctx=10, slots=3, cache_type="f16")
    assert (mixed.numbers, mixed.keyless) == (2 * 4 * 32, 2)
    assert estimate(mixed, load).cache == 8 * 32 * 30 * 2 + 2 * 1000 * 3 * 4
    assert estimate(mixed, load, CPU).cache - estimate(mixed, load).cache == 2 * 100 * 30 * 2


def test_heads_may_have_their_own_length() -> None:
    own = shape(weights=0, vocabulary=0, embedding=64, blocks=1, heads=4, kv_heads=1, key=256, value=128)
    assert estimate(own, LoadOptions(num_ctx=10, slots=1, cache_type="f16")).cache == 384 * 10 * 2


def test_layers_may_have_other_heads_or_read_the_keys_of_others() -> None:
    two = shape(
        weights=0, vocabulary=0, embedding=64, blocks=4, heads=4, kv_heads=(1, 2, 1, 2), key=512, value=512,
        near=(True, False, True, False), near_length=256, shared=2,
    )  # fmt: skip
    assert estimate(two, LoadOptions(num_ctx=10, slots=1, cache_type="f16")).cache == (512 + 2 * 1024) * 10 * 2


@pytest.mark.parametrize(
    "said", [{"period": 3}, {"near": (True, True, False, True, True, False)}], ids=["a period", "each layer"]
)
def test_of_layers_with_a_window_an_engine_may_keep_no_more_than_that(said: dict[str, Any]) -> None:
    # Four of six layers look back over 512 places; with a batch of 64 tokens that is kept as 768.
    layout = shape(
        weights=0, vocabulary=0, embedding=64, blocks=6, heads=4, kv_heads=1, key=128, value=128, window=512, **said
    )
    load = LoadOptions(num_ctx=4096, slots=2, cache_type="f16", num_batch=64)
    assert estimate(layout, load).cache == 2 * (2 * 4096 + 4 * 768) * 256 * 2
    assert estimate(layout, replace(load, num_ctx=600)).cache == 2 * 6 * 600 * 256 * 2
    assert estimate(layout, load, CPU).cache == 2 * 6 * 4096 * 256 * 2


def test_a_cache_keeps_to_what_it_may_take_but_for_one_context() -> None:
    one = estimate_for(SMALL, replace(LOAD, slots=1), CPU).cache
    assert estimate_for(SMALL, LOAD, CPU, 2 * one).cache == 2 * one
    assert estimate_for(SMALL, LOAD, CPU, one // 2).cache == one
    assert estimate_for(SMALL, LOAD, CPU, 9 * one).cache == 4 * one


def test_more_tokens_at_once_take_more_memory() -> None:
    few, many = (estimate(SMALL, replace(LOAD, num_batch=batch)).compute for batch in (64, 512))
    assert many - few == 448 * 12 * 576 * 4


def test_an_image_takes_what_its_encoder_does() -> None:
    # A picture of 896 by 896 points in patches of 14, in an encoder 1152 wide and 4304 within: 191 MiB were measured.
    seen = encoding((896 // 14) ** 2, 1152, 4304)
    assert seen == 4096 * (3 * 1152 + 2 * 4304) * 4
    assert estimate(replace(SMALL, media=seen), LOAD).compute == estimate(SMALL, LOAD).compute + seen


def test_weights_count_as_they_lie_in_the_file() -> None:
    result = estimate(SMALL, LOAD)
    assert result.weights == 98_000_000
    assert result.total == result.weights + result.cache + result.compute
    assert result.compute > LLAMA.base


def test_a_header_that_says_little_is_no_fault() -> None:
    assert estimate(shape(weights=5, vocabulary=0, embedding=0, blocks=0, heads=0, kv_heads=None), LOAD).cache == 0


def test_of_a_table_that_is_only_looked_up_the_rows_in_use_count() -> None:
    own = replace(SMALL, vocabulary=4 * ROWS, weights=98_000_000, looked_up=40_000_000)
    assert estimate(own, LOAD).weights == 58_000_000 + 10_000_000
    assert estimate(own, LOAD, CPU).weights == int(58_000_000 * CPU.weights) + 10_000_000
    assert estimate(replace(own, vocabulary=ROWS // 2), LOAD).weights == 98_000_000


def test_a_table_that_is_the_head_too_counts_whole_and_its_rows_where_the_head_is_kept_apart() -> None:
    tied = replace(SMALL, vocabulary=4 * ROWS, weights=98_000_000, tied=40_000_000)
    assert estimate(tied, LOAD).weights == 98_000_000
    assert estimate(tied, LOAD, CPU).weights == int(98_000_000 * CPU.weights) + 10_000_000
