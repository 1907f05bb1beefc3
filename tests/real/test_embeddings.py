"""/v1/embeddings on real engines, with the default model: a chat model embeds by the mean of its last layer."""

from __future__ import annotations

import base64
import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from .conftest import Program, serve

TEXTS = ["The cat sleeps on the sofa.", "日本語 🦊"]


@pytest.fixture(scope="module", params=["llama", "auto"])
def embedding(
    request: pytest.FixtureRequest, pulled: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Program]:
    """Where the engine is ours to choose, one is found that embeds, however many requests at once are asked for."""
    log = tmp_path_factory.mktemp("serve") / "log"
    with serve(pulled, log, PUNA_ENGINE=request.param, PUNA_NUM_PARALLEL="16", PUNA_CONTEXT_LENGTH="128") as running:
        yield running


def embed(program: Program, input_: Any, **fields: Any) -> Any:
    return program.client.embeddings.create(model="smollm2", input=input_, **fields)


def vectors(program: Program, input_: Any, **fields: Any) -> list[list[float]]:
    answer = embed(program, input_, **{"encoding_format": "float"} | fields)
    assert [one.index for one in answer.data] == [*range(len(answer.data))]
    return [one.embedding for one in answer.data]


def ids(program: Program, text: str) -> list[int]:
    body = {"model": "smollm2", "content": text}
    found: Any = program.client.post(f"{program.url}/tokenize", body=body, cast_to=object)
    return list(found["tokens"])


@pytest.mark.timeout(300)
def test_four_forms_in_any_company_give_the_same(embedding: Program) -> None:
    tokens = [ids(embedding, text) for text in TEXTS]
    together = embed(embedding, TEXTS, encoding_format="float")
    assert together.usage.prompt_tokens == together.usage.total_tokens == sum(map(len, tokens))
    first, second = [one.embedding for one in together.data]
    assert len(first) == 576
    assert math.isclose(math.hypot(*first), 1, abs_tol=1e-6)
    assert sum(a * b for a, b in zip(first, second, strict=True)) < 0.99
    assert vectors(embedding, TEXTS[0]) == vectors(embedding, tokens[0]) == [first]
    assert vectors(embedding, tokens) == [first, second]
    assert vectors(embedding, [*reversed(TEXTS)]) == [second, first]


def test_base64_is_little_endian_float32(embedding: Program) -> None:
    [plain] = vectors(embedding, TEXTS[0])
    raw = embedding.client.embeddings.with_raw_response.create(
        model="smollm2", input=TEXTS[0], encoding_format="base64"
    )
    data = base64.b64decode(json.loads(raw.text)["data"][0]["embedding"])
    assert struct.unpack(f"<{len(data) // 4}f", data) == pytest.approx(plain, abs=1e-7)
    assert embed(embedding, TEXTS[0]).data[0].embedding == pytest.approx(plain, abs=1e-7), "what the package decodes"


def test_dimensions_cut_and_normalise(embedding: Program) -> None:
    [whole], [cut] = vectors(embedding, TEXTS[0]), vectors(embedding, TEXTS[0], dimensions=7)
    length = math.hypot(*whole[:7])
    assert cut == pytest.approx([value / length for value in whole[:7]], abs=1e-6)
    with pytest.raises(openai.BadRequestError) as refused:
        embed(embedding, TEXTS[0], dimensions=577)
    assert refused.value.param == "dimensions"
    assert "576" in refused.value.message


@pytest.mark.parametrize("long", ["word " * 200, [5] * 129], ids=["text", "tokens"])
def test_an_input_that_is_too_long_is_named(embedding: Program, long: Any) -> None:
    short = "short" if isinstance(long, str) else [5]
    with pytest.raises(openai.BadRequestError) as refused:
        embed(embedding, [short, long, short])
    assert (refused.value.param, refused.value.code) == ("input[1]", "context_length_exceeded")
    assert "128" in refused.value.message
    assert len(vectors(embedding, [5] * 128)) == 1


def test_an_engine_that_cannot_says_so(pulled: Path, tmp_path: Path) -> None:
    with serve(pulled, tmp_path / "log", PUNA_ENGINE="cpu") as named, pytest.raises(openai.APIStatusError) as refused:
        embed(named, TEXTS)
    assert refused.value.status_code == 400
    assert "cpu" in refused.value.message
