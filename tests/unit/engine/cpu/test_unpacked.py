from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest

from fakes.gguf_files import write_tiny_llama
from puna.engine.cpu import unpacked, weights
from puna.engine.cpu.reader import Tensors
from puna.engine.cpu.unpacked import Bundle, Linear
from puna.errors import ModelFileError
from puna.model.gguf import Header, read_header


@pytest.fixture
def model(tmp_path: Path) -> tuple[Path, Header]:
    path = write_tiny_llama(tmp_path / "model.gguf")
    return path, read_header(path)


def in_order(_: str) -> None:
    return None


def load(model: tuple[Path, Header], directory: Path | None, key: str = "k") -> dict[str, Linear]:
    path, header = model
    tensors = Tensors(path, header)
    wanted = unpacked.bundles(header)
    return unpacked.load(
        directory, key, wanted, lambda bundle: unpacked.unpack(bundle, tensors, in_order, exact=False), threads=2
    )


def same(first: dict[str, Linear], second: dict[str, Linear]) -> bool:
    return first.keys() == second.keys() and all(
        np.array_equal(first[name].matrix, second[name].matrix) and first[name].shape == second[name].shape
        for name in first
    )


def test_neighbours_of_one_type_become_one_matrix(model: tuple[Path, Header]) -> None:
    _, header = model
    names = [tuple(tensor.name for tensor in bundle.tensors) for bundle in unpacked.bundles(header)]
    assert names[:4] == [
        ("blk.0.attn_q.weight", "blk.0.attn_k.weight", "blk.0.attn_v.weight"),
        ("blk.0.ffn_gate.weight", "blk.0.ffn_up.weight"),
        ("blk.0.attn_output.weight",),
        ("blk.0.ffn_down.weight",),
    ]
    assert names[-1] == ("token_embd.weight",)


def test_the_file_holds_what_memory_would(model: tuple[Path, Header], tmp_path: Path) -> None:
    in_memory = load(model, None)
    first, again = load(model, tmp_path / "cache"), load(model, tmp_path / "cache")
    assert same(in_memory, first)
    assert same(first, again)
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".unpacked"]


def resident(path: Path) -> int:
    """Kilobytes of the file's pages that this process holds."""
    size, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match("[0-9a-f]+-[0-9a-f]+ ", line):
            ours = line.endswith(str(path))
        elif ours and line.startswith("Rss:"):
            size += int(line.split()[1])
    return size


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="how much a process holds is seen on Linux only")
def test_mapped_pages_can_be_let_go_and_come_back(model: tuple[Path, Header], tmp_path: Path) -> None:
    linears = load(model, tmp_path / "cache")
    (file,) = (tmp_path / "cache").iterdir()
    assert resident(file) > 0
    unpacked.let_go(linears)
    assert resident(file) == 0
    assert same(linears, load(model, None))
    unpacked.let_go(load(model, None))


@pytest.mark.parametrize("place", [0, -1, -40])
def test_a_damaged_file_is_made_again(model: tuple[Path, Header], tmp_path: Path, place: int) -> None:
    expected = load(model, None)
    load(model, tmp_path)
    (file,) = tmp_path.glob("*.unpacked")
    data = bytearray(file.read_bytes())
    data[place] ^= 0xFF
    file.write_bytes(data)
    assert unpacked.read(file, threads=1) is None
    assert not file.exists()
    assert same(load(model, tmp_path), expected)


@pytest.mark.parametrize("size", [0, 10, 3000])
def test_a_cut_file_is_no_file(model: tuple[Path, Header], tmp_path: Path, size: int) -> None:
    load(model, tmp_path)
    (file,) = tmp_path.glob("*.unpacked")
    os.truncate(file, size)
    assert unpacked.read(file, threads=1) is None


def test_without_a_place_to_write_the_arrays_stay_in_memory(model: tuple[Path, Header], tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    assert same(load(model, blocked / "cache"), load(model, None))


def test_a_failed_write_leaves_nothing(model: tuple[Path, Header], tmp_path: Path) -> None:
    def fail(_: Bundle) -> Linear:
        raise ModelFileError("no")

    with pytest.raises(ModelFileError):
        unpacked.write(tmp_path / "x.unpacked", unpacked.bundles(model[1]), fail, threads=2)
    assert not list(tmp_path.glob("*.part"))
    assert not list(tmp_path.glob("*.unpacked"))


def test_the_least_lately_used_go_first(tmp_path: Path) -> None:
    for age, name in enumerate(["newest", "middle", "oldest"]):
        file = tmp_path / f"{name}.unpacked"
        file.write_bytes(bytes(100))
        os.utime(file, (1000 - age, 1000 - age))
    unpacked.prune(tmp_path, keep=tmp_path / "oldest.unpacked", limit=250)
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["newest", "oldest"]


def test_the_key_follows_the_file(model: tuple[Path, Header]) -> None:
    path, header = model

    def key(exact: bool = False, engine: str = "1") -> str:
        return unpacked.cache_key(path, header, exact=exact, engine=engine)

    before = key()
    assert before == key()
    assert len({before, key(exact=True), key(engine="2")}) == 3
    os.utime(path, (1, 1))
    assert key() != before


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("signed", [True, False])
def test_zero_and_rest_put_the_offset_back(bits: int, signed: bool) -> None:
    random = np.random.default_rng(0)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1)) if signed else (0, 2**bits)
    integers = random.integers(low, high, (3, 4, 32)).astype(np.int8 if signed else np.uint8)
    scales = random.random((3, 4)).astype(np.float32)
    scales[0, 0] = 0
    offsets = None if signed else (-random.random((3, 4)) * 8).astype(np.float32)
    quantised = weights.Quantised(integers, scales, offsets, 4 if bits == 4 else 8)
    linear = unpacked.linear(quantised)
    matrix = linear.matrix
    if bits == 4:
        matrix = np.stack([matrix & 15, matrix >> 4], axis=-1).reshape(integers.shape)
        matrix = matrix.astype(np.int8) - 16 * (matrix > 7) if signed else matrix
    numbers = matrix.astype(np.float32)
    if linear.zeros is not None and linear.rests is not None:
        numbers = (numbers - linear.zeros[..., None]) * linear.scales[..., None] + linear.rests[..., None]
    else:
        numbers = numbers * linear.scales[..., None]
    np.testing.assert_allclose(numbers.reshape(3, -1), quantised.values(), atol=1e-5)
