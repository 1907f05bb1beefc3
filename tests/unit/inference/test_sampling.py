from __future__ import annotations

from dataclasses import replace

import pytest

from puna.engine.runner import Feature, RunnerInfo
from puna.errors import InvalidRequest, Unsupported
from puna.inference.sampling import choice_seed, decide, first_seed, fold_seed, sampling
from puna.types import Options


def info(*features: Feature) -> RunnerInfo:
    return RunnerInfo(
        engine="e", version="1", num_ctx=100, slots=1, vocabulary=10, bos=None, eos=(1,), add_bos=False,
        embedding_length=4, seed_exact=True, features=frozenset(features), memory=0,
    )  # fmt: skip


def test_the_request_comes_before_the_model_before_the_defaults() -> None:
    decided = decide(Options(temperature=0.1), Options(temperature=0.2, top_p=0.3), info())
    assert (decided.options.temperature, decided.options.top_p, decided.options.top_k) == (0.1, 0.3, 40)
    assert decided.ignored == ()


def test_zero_is_said() -> None:
    made = sampling(decide(Options(temperature=0.0, top_k=0), Options(), info()).options, max_tokens=1, seed=0)
    assert (made.temperature, made.top_k, made.min_p) == (0.0, 0, 0.0)


def test_what_the_engine_cannot_do_is_refused_if_asked_and_reported_if_the_models() -> None:
    with pytest.raises(Unsupported) as caught:
        decide(Options(mirostat=1), Options(), info())
    assert caught.value.param == "mirostat"
    decided = decide(Options(), Options(mirostat=1), info())
    assert (decided.options.mirostat, decided.ignored, decided.ignored_parameters) == (0, (), ("mirostat",))
    assert decide(Options(mirostat=1), Options(), info(Feature.MIROSTAT)).options.mirostat == 1


def test_num_keep_is_reported() -> None:
    assert decide(Options(num_keep=5), Options(), info()).ignored == ("num_keep",)
    assert decide(Options(), Options(num_keep=5), info()).ignored_parameters == ("num_keep",)


def test_load_options_that_mean_nothing_to_the_engine_are_reported_where_they_are_said() -> None:
    engine = replace(info(), without_effect=("main_gpu", "use_mmap", "flash_attention"))
    assert decide(Options(main_gpu=0, num_ctx=64), Options(use_mmap=False), engine).ignored == ("main_gpu",)
    assert decide(Options(num_ctx=64), Options(use_mmap=False), engine).ignored_parameters == ("use_mmap",)
    assert decide(Options(main_gpu=0), Options(use_mmap=False), info()).ignored == ()


@pytest.mark.parametrize("token", [-1, 10])
def test_bias_of_a_token_that_is_not_there(token: int) -> None:
    with pytest.raises(InvalidRequest, match="vocabulary of 10") as caught:
        decide(Options(logit_bias=((token, 1.0),)), Options(), info(Feature.LOGIT_BIAS))
    assert caught.value.param == "logit_bias"


@pytest.mark.parametrize("seed", [0, 1, 42, 2**32 - 2])
def test_seeds_that_fit_stay(seed: int) -> None:
    assert fold_seed(seed) == seed


@pytest.mark.parametrize("seed", [-2, 2**32 - 1, 2**32, 2**63, -(2**63)])
def test_other_seeds_are_folded_the_same_way_each_time(seed: int) -> None:
    assert fold_seed(seed) == fold_seed(seed)
    assert 0 <= fold_seed(seed) < 2**32 - 1
    assert fold_seed(seed) != fold_seed(seed + 7)


@pytest.mark.parametrize("seed", [None, -1])
def test_no_seed_is_a_fresh_one(seed: int | None) -> None:
    assert first_seed(seed, lambda: 7) == 7
    assert first_seed(5, lambda: 7) == 5


def test_each_choice_has_its_own_seed() -> None:
    seeds = [choice_seed(42, index) for index in range(128)]
    assert seeds[0] == 42
    assert len(set(seeds)) == 128
    assert seeds == [choice_seed(42, index) for index in range(128)]
