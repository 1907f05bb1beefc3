"""Damaged and hostile model files: refused with a typed error, or loaded, and then they compute. None ends the process.

`PUNA_TEST_MUTATIONS` says how many are tried; with the sanitized library (`PUNA_CPU_VARIANT`) nothing is read outside a
buffer either.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fakes.gguf_files import Tensor, Value, write_gguf, write_tiny_llama
from puna.engine.cpu.check import check_numbers
from puna.engine.cpu.forward import Forward
from puna.errors import LoadFailed, ModelFileError
from puna.model.ggml import TensorType
from puna.model.gguf import read_header
from real.cpu.models import VOCABULARY, Recipe, write_model

TRIALS = int(os.environ.get("PUNA_TEST_MUTATIONS", "400"))
SMALL = Recipe(layers=1, heads=2, kv_heads=1, head_size=32, hidden=64, feed_forward=64)
RECIPES = (
    SMALL,
    replace(SMALL, family="phi3"),
    replace(SMALL, family="gemma3", settings={"attention.sliding_window": 4}),
    replace(SMALL, family="qwen3moe", experts=3),
    replace(SMALL, family="lfm2", layers=2, convolutions=(1,)),
    replace(SMALL, family="qwen35", layers=4),
    replace(
        SMALL,
        family="gemma4",
        layers=3,
        head_size=64,
        additions=32,
        settings={
            "attention.sliding_window": 4,
            "attention.sliding_window_pattern": [True, False, False],
            "attention.key_length_swa": 48,
            "attention.value_length_swa": 48,
            "attention.head_count_kv": [2, 1, 1],
            "attention.shared_kv_layers": 1,
            "embedding_length_per_layer_input": 32,
            "feed_forward_length": [64, 64, 96],
            "rope.dimension_count_swa": 48,
        },
    ),
    replace(
        SMALL,
        family="gemma4",
        layers=2,
        experts=2,
        keys_as_values=True,
        settings={
            "attention.sliding_window": 4,
            "attention.sliding_window_pattern": [True, False],
            "feed_forward_length": [96, 96],
        },
    ),
    replace(SMALL, family="gpt-oss", experts=2, biases=True, settings={"attention.sliding_window": 4}),
)
NUMBERS: Sequence[Value] = (
    0,
    1,
    2,
    3,
    31,
    33,
    64,
    1 << 20,
    (1 << 31) - 1,
    (1 << 32) - 1,
    -1,
    0.5,
    -1.0,
    "x",
    True,
    [1, 2],
)
REALS: Sequence[Value] = (float("nan"), float("inf"), 1e38, -1e38, 1e-45, 0.0)


def tried(path: Path) -> str | None:
    """The refusal's text; None if the file was loaded and computed numbers."""
    try:
        forward = Forward(path, read_header(path), threads=1, num_ctx=64)
        forward.allocate(2)
        check_numbers(forward)
        forward.close()
    except (ModelFileError, LoadFailed) as error:
        return error.message
    return None


class Parts:
    """A model file taken apart, to be changed and written anew."""

    def __init__(self, path: Path) -> None:
        header, data = read_header(path, arrays=True), path.read_bytes()
        self.architecture = header.architecture
        self.metadata: dict[str, Value] = {
            key: list(value) if isinstance(value, tuple) else value  # type: ignore[misc]
            for key, value in header.metadata.items()
            if key != "general.architecture"
        }
        self.tensors = [Tensor(t.name, t.shape, t.type, data[t.offset : t.offset + t.size]) for t in header.tensors]

    def write(self, path: Path) -> Path:
        return write_gguf(path, architecture=self.architecture, metadata=self.metadata, tensors=self.tensors)


def change_a_number(parts: Parts, source: random.Random) -> None:
    keys = [key for key in parts.metadata if key.startswith(parts.architecture)]
    parts.metadata[source.choice(keys)] = source.choice([*NUMBERS, *REALS])


def lose_a_number(parts: Parts, source: random.Random) -> None:
    del parts.metadata[source.choice([key for key in parts.metadata if key.startswith(parts.architecture)])]


def lose_a_tensor(parts: Parts, source: random.Random) -> None:
    parts.tensors.pop(source.randrange(len(parts.tensors)))


def swap_data(parts: Parts, source: random.Random) -> None:
    one, other = source.sample(range(len(parts.tensors)), 2)
    first, second = parts.tensors[one], parts.tensors[other]
    parts.tensors[one] = replace(second, name=first.name)
    parts.tensors[other] = replace(first, name=second.name)


def change_a_shape(parts: Parts, source: random.Random) -> None:
    place = source.randrange(len(parts.tensors))
    tensor = parts.tensors[place]
    shape = [*tensor.shape, 1]
    shape[source.randrange(len(shape))] = source.choice([1, 2, 16, 31, 32, 63, 64, 96, 320, 4096])
    source.shuffle(shape)
    kind = source.choice([TensorType.F32, TensorType.Q8_0, TensorType.Q4_0, TensorType.Q6_K, TensorType.I32])
    count = int(np.prod(shape))
    if count <= 1 << 20 and count % kind.block_size == 0 and shape[0] % kind.block_size == 0:
        parts.tensors[place] = Tensor(tensor.name, tuple(shape), kind, source.randbytes(kind.bytes_of(count)))


def fill_with_noise(parts: Parts, source: random.Random) -> None:
    place = source.randrange(len(parts.tensors))
    tensor = parts.tensors[place]
    parts.tensors[place] = replace(tensor, data=source.randbytes(len(tensor.bytes)))


def overlap(parts: Parts, source: random.Random) -> None:
    place = source.randrange(len(parts.tensors))
    parts.tensors[place] = replace(parts.tensors[place], offset=source.randrange(0, 1 << 12, 32))


CHANGES: Sequence[Callable[[Parts, random.Random], None]] = (
    change_a_number, change_a_number, lose_a_number, lose_a_tensor, swap_data, change_a_shape, change_a_shape,
    fill_with_noise, overlap,
)  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Path]:
    directory = tmp_path_factory.mktemp("models")
    paths = [directory / f"{number}.gguf" for number in range(len(RECIPES))]
    for path, recipe in zip(paths, RECIPES, strict=True):
        write_model(path, recipe)
        assert tried(path) is None
    return paths


@pytest.mark.timeout(1200)
def test_changed_files_are_refused_or_compute(models: Sequence[Path], tmp_path: Path) -> None:
    refused = set()
    for trial in range(TRIALS):
        source = random.Random(trial)
        parts = Parts(models[trial % len(models)])
        for _ in range(source.randint(1, 2)):
            source.choice(CHANGES)(parts, source)
        refused.add(tried(parts.write(tmp_path / "changed.gguf")))
    assert None in refused
    assert len(refused) > TRIALS // 20


@pytest.mark.timeout(1200)
def test_bytes_turned_anywhere_are_refused_or_compute(models: Sequence[Path], tmp_path: Path) -> None:
    path = tmp_path / "turned.gguf"
    refused = set()
    for trial in range(TRIALS):
        source = random.Random(trial)
        data = bytearray(models[trial % len(models)].read_bytes())
        end = source.choice([400, 3000, len(data)])
        for _ in range(source.choice([1, 1, 4, 40])):
            data[source.randrange(min(end, len(data)))] = source.randrange(256)
        path.write_bytes(data[: source.choice([len(data)] * 9 + [source.randrange(len(data))])])
        refused.add(tried(path))
    assert None in refused


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"llama.attention.head_count_kv": 3}, "heads"),
        ({"llama.rope.dimension_count": 34}, "rope.dimension_count is 34, for heads of 32"),
        ({"llama.rope.dimension_count": 1 << 31}, "rope.dimension_count"),
        ({"llama.rope.freq_base": 0.0}, "freq_base"),
        ({"llama.attention.layer_norm_rms_epsilon": float("nan")}, "epsilon"),
        ({"llama.block_count": 1 << 20}, "block_count is 1048576"),
        ({"llama.block_count": 2}, "there are tensors of 1 layers"),
        ({"llama.embedding_length": 96}, "the embeddings are 64 wide"),
        ({"llama.feed_forward_length": 96}, "feed_forward_length is 96, and there are tensors of 64"),
        ({"llama.attention.key_length": 33, "llama.attention.value_length": 33}, "multiple"),
        ({"llama.attention.key_length": 40, "llama.attention.value_length": 40}, "multiple"),
        ({"llama.attention.key_length": 48, "llama.attention.value_length": 48}, "attn_q"),
    ],
)
def test_numbers_that_do_not_fit_are_named(
    change: dict[str, Value], word: str, models: Sequence[Path], tmp_path: Path
) -> None:
    parts = Parts(models[0])
    parts.metadata |= change
    assert word in (tried(parts.write(tmp_path / "changed.gguf")) or "")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"lfm2.shortconv.l_cache": 0}, "l_cache"),
        ({"lfm2.shortconv.l_cache": 2}, "shortconv.conv"),
        ({"lfm2.shortconv.l_cache": 1 << 20}, "tokens"),
        ({"lfm2.attention.head_count_kv": [1, 1]}, "attn_q_norm"),
        ({"lfm2.attention.head_count_kv": [0, 0]}, "heads of keys"),
        ({"lfm2.attention.head_count_kv": [0, 1]}, "shortconv"),
        ({"lfm2.attention.head_count_kv": [1, 0, 0]}, "head_count_kv"),
        ({"lfm2.attention.head_count_kv": [1, -1]}, "head_count_kv"),
        ({"lfm2.block_count": 3}, "head_count_kv"),
    ],
)
def test_numbers_of_convolutions_that_do_not_fit_are_named(
    change: dict[str, Value], word: str, models: Sequence[Path], tmp_path: Path
) -> None:
    parts = Parts(models[[recipe.family for recipe in RECIPES].index("lfm2")])
    parts.metadata |= change
    assert word in (tried(parts.write(tmp_path / "changed.gguf")) or "")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"qwen35.ssm.conv_kernel": 3}, "ssm_conv1d"),
        ({"qwen35.ssm.state_size": 64, "qwen35.ssm.inner_size": 256}, "ssm_conv1d"),
        ({"qwen35.ssm.state_size": 1 << 20}, "at most"),
        ({"qwen35.ssm.time_step_rank": 1 << 18, "qwen35.ssm.inner_size": 1 << 22}, "heads of values"),
        ({"qwen35.ssm.group_count": 4}, "ssm_conv1d"),
        ({"qwen35.ssm.inner_size": 1 << 30}, "inner_size"),
        ({"qwen35.full_attention_interval": 3}, "attn_q_norm"),
        ({"qwen35.full_attention_interval": 1 << 30}, "full_attention_interval"),
        ({"qwen35.nextn_predict_layers": 4}, "layers"),
        ({"qwen35.block_count": 5}, "block_count"),
        ({"qwen35.attention.head_count": 4}, "attn_q"),
    ],
)
def test_numbers_of_linear_attention_that_do_not_fit_are_named(
    change: dict[str, Value], word: str, models: Sequence[Path], tmp_path: Path
) -> None:
    parts = Parts(models[[recipe.family for recipe in RECIPES].index("qwen35")])
    parts.metadata |= change
    assert word in (tried(parts.write(tmp_path / "changed.gguf")) or "")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"gemma4.attention.sliding_window_pattern": [True, False]}, "each layer"),
        ({"gemma4.attention.sliding_window_pattern": [1, 0, 0]}, "each layer"),
        ({"gemma4.attention.sliding_window_pattern": [True, False, True]}, "another shape"),
        ({"gemma4.attention.sliding_window_pattern": [True, True, False]}, "has keys"),
        ({"gemma4.attention.shared_kv_layers": 3}, "has keys"),
        ({"gemma4.attention.shared_kv_layers": -1}, "shared_kv_layers"),
        ({"gemma4.attention.head_count_kv": [2, 1, 2]}, "another shape"),
        ({"gemma4.attention.head_count_kv": [2, 0, 0]}, "of keys"),
        ({"gemma4.attention.key_length_swa": 30, "gemma4.attention.value_length_swa": 30}, "rotates"),
        ({"gemma4.embedding_length_per_layer_input": 64}, "inp_gate"),
        ({"gemma4.embedding_length_per_layer_input": 0}, "inp_gate"),
        ({"gemma4.expert_count": 4}, "expert_feed_forward_length"),
        ({"tokenizer.ggml.suppress_tokens": [1]}, "suppresses"),
    ],
)
def test_numbers_of_layers_of_two_shapes_that_do_not_fit_are_named(
    change: dict[str, Value], word: str, models: Sequence[Path], tmp_path: Path
) -> None:
    parts = Parts(models[[recipe.family for recipe in RECIPES].index("gemma4")])
    parts.metadata |= change
    assert word in (tried(parts.write(tmp_path / "changed.gguf")) or "")


def test_blocks_that_foretell_tokens_are_left_alone(models: Sequence[Path], tmp_path: Path) -> None:
    parts = Parts(models[[recipe.family for recipe in RECIPES].index("qwen35")])
    parts.metadata |= {"qwen35.block_count": 5, "qwen35.nextn_predict_layers": 1}
    parts.tensors.append(Tensor("blk.4.nextn.eh_proj.weight", (128, 64)))
    assert tried(parts.write(tmp_path / "more.gguf")) is None


@pytest.mark.parametrize(
    "name",
    ["attn_qkv.weight", "attn_gate.weight", "ssm_conv1d.weight", "ssm_dt.bias", "ssm_a", "ssm_alpha.weight",
     "ssm_beta.weight", "ssm_norm.weight", "ssm_out.weight"],
)  # fmt: skip
def test_a_tensor_of_linear_attention_that_is_missing_is_named(
    name: str, models: Sequence[Path], tmp_path: Path
) -> None:
    parts = Parts(models[[recipe.family for recipe in RECIPES].index("qwen35")])
    parts.tensors = [tensor for tensor in parts.tensors if tensor.name != f"blk.1.{name}"]
    assert f"blk.1.{name}" in (tried(parts.write(tmp_path / "less.gguf")) or "")


@pytest.mark.parametrize("name", ["shortconv.conv", "shortconv.in_proj", "shortconv.out_proj"])
def test_a_convolutions_tensor_that_is_missing_is_named(name: str, models: Sequence[Path], tmp_path: Path) -> None:
    parts = Parts(models[[recipe.family for recipe in RECIPES].index("lfm2")])
    parts.tensors = [tensor for tensor in parts.tensors if name not in tensor.name]
    assert f"blk.1.{name}.weight" in (tried(parts.write(tmp_path / "less.gguf")) or "")


LIMITED = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from real.cpu.test_hostile import *
import psutil

model, trials = Path(sys.argv[2]), int(sys.argv[3])
assert tried(model) is None
resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + (64 << 20), resource.RLIM_INFINITY))
refused = 0
for trial in range(trials):
    source = random.Random(trial)
    parts = Parts(model)
    for _ in range(source.randint(1, 2)):
        source.choice(CHANGES[:4])(parts, source)
    refused += tried(parts.write(model.parent / "changed.gguf")) is not None
print(refused)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_AS")
@pytest.mark.timeout(1200)
def test_no_header_makes_a_child_take_much_memory(models: Sequence[Path], tmp_path: Path) -> None:
    """Where 64 MB more than a sound model takes are not to be had, nothing fails for want of memory."""
    model = tmp_path / "model.gguf"
    model.write_bytes(models[0].read_bytes())
    command = [sys.executable, "-c", LIMITED, str(Path(__file__).parents[2]), str(model), str(TRIALS)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=1100)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert TRIALS // 4 < int(ended.stdout) < TRIALS


def test_a_tensor_that_nobody_knows_is_named(models: Sequence[Path], tmp_path: Path) -> None:
    parts = Parts(models[0])
    parts.tensors.append(Tensor("blk.0.attn_norm.bias", (64,)))
    assert "blk.0.attn_norm.bias" in (tried(parts.write(tmp_path / "more.gguf")) or "")


def test_norms_that_are_no_numbers_are_named(models: Sequence[Path], tmp_path: Path) -> None:
    parts = Parts(models[0])
    place = next(i for i, tensor in enumerate(parts.tensors) if tensor.name == "output_norm.weight")
    parts.tensors[place] = replace(parts.tensors[place], data=np.full(64, np.nan, np.float32).tobytes())
    assert "output_norm.weight" in (tried(parts.write(tmp_path / "nan.gguf")) or "")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (([VOCABULARY], [0], [0, 1], [0], [0, 1], [0]), "token"),
        (([-1], [0], [0, 1], [0], [0, 1], [0]), "token"),
        (([5], [0], [0, 1], [2], [0, 1], [0]), "block"),
        (([5], [0], [0, 1], [-1], [0, 1], [0]), "block"),
        (([5], [40], [0, 1], [0], [0, 1], [0]), "blocks"),
        (([5], [-1], [0, 1], [0], [0, 1], [0]), "tokens"),
        (([5, 5], [0], [0, 1], [0], [0, 1], [0]), "sequences"),
        (([5], [0], [0, 1], [0, 1], [0, 1], [0]), "sequences"),
        (([5], [0], [0, 1], [0], [0, 1], [1]), "row"),
        (([5], [0], [0, 1], [0], [0, 1], [-1]), "row"),
        (([], [], [0], [], [0], []), "rows"),
    ],
)
def test_a_step_that_does_not_fit_is_refused(
    arguments: tuple[list[int], ...], word: str, models: Sequence[Path]
) -> None:
    forward = Forward(models[0], read_header(models[0]), threads=1, num_ctx=64)
    with pytest.raises(ValueError, match="allocated"):
        forward([5], [0], [0, 1], [0], [0, 1], [0])
    forward.allocate(2)
    with pytest.raises(ValueError, match=word):
        forward(*arguments)
    assert np.isfinite(forward([5], [0], [0, 1], [0], [0, 1], [0])).all()


@pytest.mark.parametrize("context", [1, 3])
def test_a_context_of_a_few_tokens_is_no_fault(context: int, tmp_path: Path) -> None:
    path = write_tiny_llama(tmp_path / "m.gguf", head=32, context_length=context)
    forward = Forward(path, read_header(path), threads=1, num_ctx=context)
    forward.allocate(2)
    check_numbers(forward)
    forward.close()
