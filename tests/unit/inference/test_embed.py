from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from fakes.house import make_model, open_house
from puna.engine.runner import Feature, RunnerInfo
from puna.errors import ContextLengthExceeded, EngineError, InvalidRequest
from puna.inference.embed import embeddings
from puna.types import EmbedRequest


def embed(*inputs: str | tuple[int, ...], **changes: object) -> EmbedRequest:
    return EmbedRequest(model="m", inputs=inputs, **changes)  # type: ignore[arg-type]


async def test_vectors_are_normalised_and_counted() -> None:
    async with open_house() as h:
        made = await h.inference.embed(embed("one", tuple(b"one"), "two"))
    assert made.prompt_tokens == 9
    assert made.vectors[0] == made.vectors[1] != made.vectors[2]
    assert all(math.hypot(*vector) == pytest.approx(1) for vector in made.vectors)


async def test_fewer_dimensions_are_normalised_again() -> None:
    async with open_house() as h:
        whole = (await h.inference.embed(embed("one"))).vectors[0]
        cut = (await h.inference.embed(embed("one", dimensions=3))).vectors[0]
        for wrong in (0, 9):
            with pytest.raises(InvalidRequest) as caught:
                await h.inference.embed(embed("one", dimensions=wrong))
            assert caught.value.param == "dimensions"
    assert len(cut) == 3
    assert math.hypot(*cut) == pytest.approx(1)
    assert cut[0] / cut[1] == pytest.approx(whole[0] / whole[1])


async def test_an_empty_text_is_the_beginning_of_one() -> None:
    async with open_house() as h:
        made = await h.inference.embed(embed("", "a"))
    assert len(made.vectors) == 2
    assert made.vectors[0] != made.vectors[1]
    assert made.prompt_tokens == 2


async def test_a_long_input_is_refused_by_its_index_or_cut() -> None:
    async with open_house(context=16) as h:
        with pytest.raises(ContextLengthExceeded) as caught:
            await h.inference.embed(embed("ok", "x" * 40))
        assert (caught.value.param, caught.value.tokens, caught.value.limit) == ("input[1]", 40, 16)
        made = await h.inference.embed(embed("ok", "x" * 40, "x" * 16, truncate=True))
    assert made.truncated == (1,)
    assert made.vectors[1] == made.vectors[2]
    assert made.prompt_tokens == 2 + 16 + 16


@pytest.mark.parametrize(
    ("request_", "param"),
    [(embed(), "input"), (embed("a", ()), "input[1]"), (embed(()), "input[0]"), (embed((99999,)), "input[0]")],
)
async def test_inputs_that_are_none(request_: EmbedRequest, param: str) -> None:
    async with open_house() as h:
        with pytest.raises(InvalidRequest) as caught:
            await h.inference.embed(request_)
    assert caught.value.param == param


class Broken:
    """A Runner as far as embedding goes, with a vector that is none."""

    info = RunnerInfo(
        engine="e", version="1", num_ctx=9, slots=1, vocabulary=9, bos=None, eos=(), add_bos=False,
        embedding_length=2, seed_exact=True, features=frozenset({Feature.EMBED}), memory=0,
    )  # fmt: skip

    async def embed(self, tokens: Sequence[int]) -> list[float]:
        return [1.0, math.nan]


async def test_a_vector_with_nan_is_the_engines_error() -> None:
    with pytest.raises(EngineError, match="NaN"):
        await embeddings(Broken(), make_model(), embed((1,)), 0, 0)  # type: ignore[arg-type]
