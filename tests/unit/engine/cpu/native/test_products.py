"""Products of packed matrices and rows, against NumPy over the very same bytes."""

from __future__ import annotations

from ctypes import CDLL

import numpy as np
import pytest

from fakes.native import (
    OF_FLOATS,
    TYPES,
    Doubles,
    Floats,
    Matrix,
    as_bytes,
    block_of,
    matrix,
    numbers,
    pack,
    product,
    with_scales,
)
from fakes.native_tiles import unpacked
from puna.model.ggml import TensorType


def rows_of(count: int, k: int, seed: int = 2) -> Floats:
    """Rows of all sizes, one of zeros among them, and one with a number far larger than its others."""
    random = np.random.default_rng(seed)
    x = (random.standard_normal((count, k)) * 10.0 ** random.integers(-6, 5, (count, 1))).astype(np.float32)
    x[count // 2] = 0
    x[count // 3, k // 3] = 1e6
    return x


def padded(x: Doubles, k: int) -> Doubles:
    return np.pad(x, ((0, 0), (0, -k % 32)))


def agree(found: Floats, x: Floats, kind: TensorType, weights: Doubles, bias: Floats | None = None) -> None:
    """To a few roundings of the terms' sizes, a minimum's beside that of what is added to it among them."""
    k = x.shape[1]
    seen = x.astype(np.float64) if kind in OF_FLOATS else as_bytes(padded(x.astype(np.float64), k))[:, :k]
    expected, size = seen @ weights.T, np.abs(seen).sum(axis=1)[:, None] * np.abs(weights).max(axis=1)
    if bias is not None:
        expected, size = expected + bias, size + np.abs(bias)
    assert (np.abs(found - expected) <= 1e-6 * size).all()


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("outputs", [1, 15, 16, 17, 100])
def test_products_are_numpys(native: CDLL, kind: TensorType, outputs: int) -> None:
    widths = [1, 7, 33, 64, 256] if kind in OF_FLOATS else [32, 64, 256, 512]
    for k in [width for width in widths if width % block_of(kind)[0] == 0]:
        source = matrix(kind, outputs, k, np.random.default_rng(k))
        packed, (held, _) = pack(native, source)
        x = rows_of(9, k)
        agree(product(native, packed, x), x, kind, unpacked(held, packed.format, outputs, k))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", TYPES)
def test_biases_are_added_last_and_follow_the_order_of_rows(native: CDLL, kind: TensorType) -> None:
    source = matrix(kind, 40, 256, np.random.default_rng(1), bias=True)
    assert source.bias is not None
    order = np.random.default_rng(2).permutation(40).astype(np.int32)
    packed, (held, _) = pack(native, source, order=order)
    x = rows_of(5, 256)
    weights = unpacked(held, packed.format, 40, 256)  # type: ignore[arg-type]
    agree(product(native, packed, x), x, kind, weights, source.bias[order])


@pytest.mark.parametrize("kind", TYPES)
def test_a_rows_bits_do_not_depend_on_company(variants: dict[str, CDLL], kind: TensorType) -> None:
    source = matrix(kind, 33, 512, np.random.default_rng(5), bias=True)
    x = rows_of(20, 512)
    first = None
    for library in variants.values():
        packed, held = pack(library, source)
        alone = np.concatenate([product(library, packed, x[row : row + 1]) for row in range(20)])
        first = alone if first is None else first
        assert alone.tobytes() == first.tobytes(), "another variant's bits"
        for count in range(1, 21):
            assert product(library, packed, x[:count]).tobytes() == alone[:count].tobytes()
        assert product(library, packed, x[::-1].copy())[::-1].tobytes() == alone.tobytes()
        del held


@pytest.mark.parametrize("kind", [kind for kind in TYPES if kind not in OF_FLOATS])
def test_the_largest_weights_and_activations_overflow_nothing(variants: dict[str, CDLL], kind: TensorType) -> None:
    """Every byte of the weights 255 or 0, every activation the largest of its group, of both signs."""
    weights, size = block_of(kind)
    for byte in (0xFF, 0x00, 0x80, 0x7F):
        raw = with_scales(kind, np.full((16, 512 // weights * size), byte, np.uint8), np.random.default_rng(6))
        source = Matrix(kind, raw, numbers(kind, raw))
        for sign in (1, -1):
            x = np.full((3, 512), sign, np.float32)
            bits = set()
            for library in variants.values():
                packed, (held, _) = pack(library, source)
                found = product(library, packed, x)
                agree(found, x, kind, unpacked(held, packed.format, 16, 512))  # type: ignore[arg-type]
                bits.add(found.tobytes())
            assert len(bits) == 1
