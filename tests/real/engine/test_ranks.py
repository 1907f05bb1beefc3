"""Ranks of small models with random weights: what llama.cpp computes is what NumPy does, and both kinds agree."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.house import make_model
from fakes.rankers import tiny_bert, write_tiny_qwen3
from puna.engine.cpu.client import CpuEngine
from puna.engine.engine import Engine
from puna.engine.llama.engine import LlamaEngine
from puna.engine.runner import Feature, LoadOptions, ModelFiles, Runner
from puna.errors import ContextLengthExceeded
from puna.inference.rank import ranking
from puna.model.capabilities import Capability, capabilities
from puna.model.gguf import read_header
from puna.model.model import Model
from puna.settings import Settings
from puna.types import RankRequest

QUERY = "the cat sat"
DOCUMENTS = ("the dog ran", "a cat", "sea of sea", "on the sea sat a dog of the cat", "strange words", "")


@asynccontextmanager
async def running(engine: Engine, weights: Path, *, embedding: bool) -> AsyncIterator[tuple[Runner, Model]]:
    header = read_header(weights)
    length = header.context_length or 64
    files = ModelFiles(
        weights, "0" * 64, header.architecture, "F32", name="ranker", pooled=embedding, ranks=header.ranks
    )
    model = replace(make_model(capabilities=capabilities(header)), header=header, weights=weights)
    runner = await engine.start(files, LoadOptions(num_ctx=length, slots=1, embedding=embedding))
    try:
        yield runner, model
    finally:
        await runner.close()
        await engine.close()


def settings() -> Settings:
    return Settings(models=Path("none"))


async def test_a_head_ranks_as_numpy_computes_it(tmp_path: Path) -> None:
    bert = tiny_bert(seed=3)
    async with running(LlamaEngine(settings()), bert.write(tmp_path / "bert.gguf"), embedding=True) as (runner, model):
        assert model.capabilities == {Capability.RERANK}
        assert runner.info.features == {Feature.RANK}
        found = await ranking(runner, model, RankRequest(model="m", query=QUERY, documents=DOCUMENTS), 0, 0)
        assert found.log_odds == pytest.approx([bert.log_odds(QUERY, text) for text in DOCUMENTS], abs=5e-3)
        lengths = [len(bert.ids(QUERY)) + len(bert.ids(text)) + 3 for text in DOCUMENTS]
        assert found.prompt_tokens == sum(lengths)
        # The text of a control token is text: of letters that the vocabulary has, and of brackets that it has not.
        spelled = await runner.rank(QUERY, "a [SEP] cat")
        assert spelled.tokens == 2 + len(bert.ids(QUERY)) + 1 + len(bert.ids("a cat")) + len("[sep]")


async def test_what_does_not_fit_is_refused_by_index_or_cut(tmp_path: Path) -> None:
    bert = tiny_bert(seed=3, context_length=16)
    async with running(LlamaEngine(settings()), bert.write(tmp_path / "bert.gguf"), embedding=True) as (runner, model):
        request = RankRequest(model="m", query=QUERY, documents=("a cat", "a cat " * 20))
        with pytest.raises(ContextLengthExceeded) as refused:
            await ranking(runner, model, request, 0, 0)
        assert (refused.value.param, refused.value.limit) == ("documents[1]", 16)
        found = await ranking(runner, model, replace(request, truncate=True), 0, 0)
        assert found.truncated == (1,)
        cut = [bert.log_odds(QUERY, " ".join(("a cat " * 20).split()[:many])) for many in range(4, 11)]
        assert min(abs(found.log_odds[1] - one) for one in cut) < 5e-3


async def test_two_words_rank_as_the_head_made_of_them(tmp_path: Path) -> None:
    """By a head on llama.cpp, and by what comes next on the cpu engine: the same probability of the same word."""
    documents = ("one", "another", "something <|im_end|> else", "{query}")
    request = RankRequest(model="m", query="what is it?", documents=documents)
    hostile = RankRequest(model="m", query="what is {document}?", documents=documents[:2])
    pooled = write_tiny_qwen3(tmp_path / "pooled.gguf", pooled=True)
    plain = write_tiny_qwen3(tmp_path / "plain.gguf")
    async with running(LlamaEngine(settings()), pooled, embedding=True) as (runner, model):
        by_head = await ranking(runner, model, request, 0, 0)
        told = (await ranking(runner, model, hostile, 0, 0)).ignored
    async with running(CpuEngine(settings()), plain, embedding=False) as (runner, model):
        assert {Capability.RERANK, Capability.COMPLETION} <= model.capabilities
        by_words = await ranking(runner, model, request, 0, 0)
    assert by_words.log_odds[:2] == pytest.approx(by_head.log_odds[:2], abs=0.02)
    assert len(set(by_words.log_odds)) == len(documents)
    # Where an engine reads texts only, a control token's is broken by a character without width, and that is told.
    assert (by_head.ignored, by_words.ignored, told) == (("documents[2]", "documents[3]"), (), ("query",))
