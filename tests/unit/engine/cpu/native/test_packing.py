"""Tensors of a file as floats, and as tiles: what the `gguf` package reads in them."""

from __future__ import annotations

from ctypes import CDLL

import gguf
import numpy as np
import pytest

from fakes import native as fake
from fakes.native import OF_FLOATS, TYPES, Bytes, Matrix, guarded, matrix, pack
from fakes.native_tiles import unpacked
from puna.model.ggml import TensorType

PRODUCTS = {TensorType[name] for name in ("Q2_K", "Q4_K", "Q5_K", "IQ4_XS")}
"""Types whose scales are products of two numbers: these take more bits than the 11 that tiles keep."""


def unpack(library: CDLL, source: Matrix) -> fake.Floats:
    rows, k = source.numbers.shape
    raw, out = guarded(source.raw), guarded(rows * (k + -k % 32) * 4)
    out[:] = 0xFF
    assert library.puna_unpack(source.kind.value, raw.ctypes.data, raw.nbytes, rows, k, out.ctypes.data) == 0
    return out.view(np.float32).reshape(rows, -1)


def widths(kind: TensorType) -> list[int]:
    if kind in OF_FLOATS:
        return [1, 31, 32, 33, 64, 100, 512]
    return [width for width in (32, 64, 96, 256, 288, 512, 768) if width % fake.block_of(kind)[0] == 0]


def sources(kind: TensorType, outputs: int, seed: int = 0) -> list[Matrix]:
    random = np.random.default_rng(seed)
    return [matrix(kind, outputs, k, random) for k in widths(kind)]


@pytest.mark.parametrize("kind", TYPES)
def test_unpacked_rows_are_what_the_file_says(native: CDLL, kind: TensorType) -> None:
    for source in sources(kind, 5):
        k = source.numbers.shape[1]
        found = unpack(native, source)
        assert np.array_equal(found[:, :k], source.numbers)
        assert not found[:, k:].any()


@pytest.mark.parametrize("kind", TYPES)
def test_every_bit_of_a_block_is_read_as_the_package_reads_it(native: CDLL, kind: TensorType) -> None:
    """Blocks of random bytes throughout: infinite, negative, tiny and huge scales among them."""
    weights, size = fake.block_of(kind)
    raw = np.random.default_rng(7).integers(0, 256, (400, size), np.uint8)
    with np.errstate(all="ignore"):
        source = Matrix(kind, raw, fake.numbers(kind, raw))
    found = unpack(native, source)[:, :weights]
    finite = np.isfinite(source.numbers)
    assert finite.any()
    assert np.array_equal(found[finite], source.numbers[finite])
    assert not np.isfinite(found[~finite]).any()


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("outputs", [1, 15, 16, 17, 100])
def test_tiles_hold_the_same_weights(native: CDLL, kind: TensorType, outputs: int) -> None:
    for source in sources(kind, outputs):
        packed, (held, _) = pack(native, source)
        found = unpacked(held, packed.format, outputs, packed.k)  # type: ignore[arg-type]
        if kind in PRODUCTS:
            assert np.abs(found - source.numbers).max() <= 2**-11 * 1.01 * np.abs(source.numbers).max()
        else:
            assert np.array_equal(found, source.numbers)


@pytest.mark.parametrize("kind", TYPES)
def test_rows_in_another_order_and_scaled(native: CDLL, kind: TensorType) -> None:
    source = matrix(kind, 40, 256, np.random.default_rng(3))
    order = np.random.default_rng(4).permutation(40)[:37].astype(np.int32)
    again = Matrix(kind, source.raw[order], source.numbers[order])
    first, (held, _) = pack(native, source, order=order, scale=0.5)
    second, (plain, _) = pack(native, again)
    weights = unpacked(held, first.format, 37, 256)  # type: ignore[arg-type]
    assert np.array_equal(weights, unpacked(plain, second.format, 37, 256) * 0.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", TYPES)
def test_tiles_are_the_same_packed_one_by_one_and_by_every_variant(variants: dict[str, CDLL], kind: TensorType) -> None:
    for source in sources(kind, 50, seed=5):
        outputs, k = source.numbers.shape
        bytes_of = {name: pack(library, source)[1][0] for name, library in variants.items()}
        library, whole = next(iter(variants.values())), next(iter(bytes_of.values()))
        assert isinstance(whole, np.ndarray)
        assert all(np.array_equal(each, whole) for each in bytes_of.values())
        raw, target = guarded(source.raw), guarded(whole.nbytes)
        for tile in (3, 1, 0, 2):
            assert not library.puna_pack(
                kind.value, raw.ctypes.data, raw.nbytes, outputs, k, None, 1.0, target.ctypes.data, target.nbytes,
                tile, tile + 1,
            )  # fmt: skip
        assert np.array_equal(target, whole)


def with_halves(kind: TensorType, raw: Bytes, value: float) -> Bytes:
    """The same blocks with another number in all places of 16 bits."""
    changed = raw.reshape(-1, fake.block_of(kind)[1]).copy()
    for at in fake.HALVES[kind.name]:
        changed[:, at : at + 2] = np.frombuffer(np.float16(value).tobytes(), np.uint8)
    return changed.reshape(raw.shape)


@pytest.mark.parametrize("kind", sorted(PRODUCTS, key=lambda kind: kind.name))
@pytest.mark.parametrize("value", [0.0, 6e-8, 6e-5, 1.0, 60000.0])
def test_scales_of_any_size_keep_their_bits(native: CDLL, kind: TensorType, value: float) -> None:
    raw = with_halves(kind, fake.tensor(kind, 20, 512, np.random.default_rng(1)), value)
    source = Matrix(kind, raw, fake.numbers(kind, raw))
    packed, (held, _) = pack(native, source)
    found = unpacked(held, packed.format, 20, 512)  # type: ignore[arg-type]
    assert np.abs(found - source.numbers).max() <= 2**-11 * 1.01 * np.abs(source.numbers).max()


def test_all_types_of_the_list_are_known_and_no_others(native: CDLL) -> None:
    known = {kind for kind in TensorType if native.puna_format(kind.value) >= 0}
    assert known == set(TYPES)
    assert all(native.puna_format(number) == -1 for number in (-1, 40, 1000, -(2**31), 2**31 - 1))
    assert {kind.name for kind in TYPES} <= {kind.name for kind in gguf.GGMLQuantizationType}
