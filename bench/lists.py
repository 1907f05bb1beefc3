"""The first list of a store of thousands that nobody has listed before, and the second: processor time of each.

    python bench/lists.py [DIR] [--models 5000] [--files 50] [--words 50000] [--rounds 3]

DIR: where the stores are made and removed. Each has so many models over so many different GGUF files, with
vocabularies of so many words and as many merges. In one store, models of one file have one manifest under many names;
in the other each has a manifest, a config and a system message of its own. Measured are `puna list` without a server,
and the server while it answers `/api/tags`, each in a new process that finds no notes of an earlier list.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from fakes.gguf_files import CHATML, Int32, Tensor, gguf_bytes
from fakes.stores import put_model
from puna.model.ggml import TensorType

TEMPLATE = b"{{ if .System }}{{ .System }}{{ end }}{{ .Prompt }}"
NOTES = "listed.json"


def weights(seed: int, words: int, layers: int = 32) -> bytes:
    """A model as small as it can be, with a vocabulary and as many tensors as real ones have."""
    source = random.Random(seed)
    texts = ["".join(source.choices("abcdefghijklmnop", k=source.randint(1, 12))) + str(at) for at in range(words)]
    tensors = [Tensor("token_embd.weight", (32, words), TensorType.Q8_0), Tensor("output_norm.weight", (32,))]
    parts = ("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down")
    tensors += [Tensor(f"blk.{layer}.{part}.weight", (32,)) for layer in range(layers) for part in parts]
    metadata = {
        "general.file_type": 7,
        "llama.block_count": layers,
        "llama.context_length": 8192,
        "llama.embedding_length": 32,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": texts,
        "tokenizer.ggml.token_type": [Int32(3 if at < 20 else 1) for at in range(words)],
        "tokenizer.ggml.merges": [f"{text[:5]} {text[5:]}" for text in texts],
        "tokenizer.ggml.eos_token_id": 2,
    }
    return gguf_bytes(metadata=metadata, chat_template=CHATML, tensors=tensors)


def fill(models: Path, count: int, files: list[bytes], *, different: bool) -> None:
    for number in range(count):
        layers = {"template": TEMPLATE, "license": b"MIT " * 2000, "params": b'{"temperature": 0.2}'}
        own = {"system": b"You are %d." % number} if different else {}
        config = {"model_family": "llama", "note": number if different else 0}
        name, path = f"m{number // 10}/v{number % 10}", None
        if number < len(files) or different:
            put_model(models, name, files[number % len(files)], {**layers, **own}, config=config)
            continue
        path = models / "manifests/registry.ollama.ai/library" / name
        first = number % len(files)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((path.parents[1] / f"m{first // 10}/v{first % 10}").read_bytes())


def environment(models: Path) -> dict[str, str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return {**os.environ, "PUNA_MODELS": str(models), "PUNA_HOST": f"127.0.0.1:{port}"}


def of_command(models: Path) -> list[float]:
    """Of the first and the second `puna list`, without what starting takes: that of one that prints its version."""
    (models / NOTES).unlink(missing_ok=True)
    taken = []
    for words in (["--version"], ["list"], ["list"]):
        before = os.times()
        subprocess.run([sys.executable, "-m", "puna", *words], env=environment(models), check=True, capture_output=True)
        after = os.times()
        taken.append(after.children_user + after.children_system - before.children_user - before.children_system)
    return [one - taken[0] for one in taken[1:]]


@contextmanager
def serving(models: Path) -> Iterator[tuple[psutil.Process, str]]:
    known = environment(models)
    with subprocess.Popen([sys.executable, "-m", "puna", "serve"], env=known, stderr=subprocess.DEVNULL) as server:
        url = f"http://{known['PUNA_HOST']}"
        try:
            for _ in range(600):
                try:
                    urllib.request.urlopen(f"{url}/health").close()
                    break
                except OSError:
                    time.sleep(0.1)
            yield psutil.Process(server.pid), url
        finally:
            server.terminate()


def of_server(models: Path, count: int) -> list[float]:
    (models / NOTES).unlink(missing_ok=True)
    taken = []
    with serving(models) as (process, url):
        for _ in range(2):
            before = process.cpu_times()
            with urllib.request.urlopen(f"{url}/api/tags") as answer:
                assert len(json.load(answer)["models"]) == count
            after = process.cpu_times()
            taken.append(after.user + after.system - before.user - before.system)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", nargs="?", type=Path)
    parser.add_argument("--models", type=int, default=5000)
    parser.add_argument("--files", type=int, default=50)
    parser.add_argument("--words", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=3)
    said = parser.parse_args()
    files = [weights(seed, said.words) for seed in range(said.files)]
    with tempfile.TemporaryDirectory(dir=said.directory) as scratch:
        for different in (False, True):
            models = Path(scratch) / ("different" if different else "alike")
            fill(models, said.models, files, different=different)
            rounds = [(of_command(models), of_server(models, said.models)) for _ in range(said.rounds)]
            for what, column in (("puna list", 0), ("/api/tags", 1)):
                first, second = (statistics.median(one[column][which] for one in rounds) for which in (0, 1))
                kind = "a manifest each" if different else "one manifest a file"
                print(f"{said.models} models, {said.files} files, {kind}: {what} {first:.2f} s, again {second:.2f} s")


if __name__ == "__main__":
    main()
