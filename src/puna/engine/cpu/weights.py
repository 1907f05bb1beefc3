"""Tensors as files keep them → integers, scales and offsets. One function a type. Knows NumPy, and nothing of graphs.

A quantised tensor is rows of groups; each value is `integer * scale + offset` with one scale (and offset) for a group.
That is exact for every type here: a file's minimum is an offset, its zero point is taken into the integers.
Source: ggml's block structures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Bytes: TypeAlias = "NDArray[np.uint8]"
Floats: TypeAlias = "NDArray[np.float32]"
Integers: TypeAlias = "NDArray[np.uint8] | NDArray[np.int8]"
Bits = Literal[4, 8]


@dataclass(frozen=True, slots=True)
class Quantised:
    """A matrix as integers with scales, a group at a time.

    `integers` [rows, groups, size]; `scales` and `offsets` [rows, groups], offsets None where all are zero.

    `bits` 4: the integers are 0 … 15 (unsigned) or -8 … 7 (signed).
    """

    integers: Integers
    scales: Floats
    offsets: Floats | None
    bits: Bits

    def values(self) -> Floats:
        """The numbers, [rows, columns]."""
        numbers = self.integers.astype(np.float32)
        numbers *= self.scales[..., None]
        if self.offsets is not None:
            numbers += self.offsets[..., None]
        return numbers.reshape(numbers.shape[0], -1)


DENSE: frozenset[str] = frozenset({"F32", "F16", "BF16"})
"""Types that are plain numbers."""


def unpack(kind: str, data: Bytes) -> Quantised:
    """`data` [rows, bytes] of a tensor of the quantised type `kind`. KeyError for a type that is not here."""
    return _UNPACK[kind](data.reshape(data.shape[0], -1, _BLOCK_BYTES[kind]))


def values(kind: str, data: Bytes) -> Floats:
    """The numbers of any type, [rows, columns]."""
    if kind == "F32":
        return data.view(np.float32)
    if kind == "F16":
        return data.view(np.float16).astype(np.float32)
    if kind == "BF16":
        return (data.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return unpack(kind, data).values()


def in_bytes(quantised: Quantised, size: int) -> Quantised:
    """The nearest signed bytes in groups of `size` columns, without offsets. Loses a little."""
    numbers = quantised.values()
    numbers = numbers.reshape(numbers.shape[0], -1, size)
    scales = np.abs(numbers).max(axis=-1) / np.float32(127)
    numbers /= np.where(scales == 0, np.float32(1), scales)[..., None]
    return Quantised(np.rint(numbers).astype(np.int8), scales, None, 8)


# --------------------------------------------------------------------------------------------- types of 32 columns


def _q8_0(blocks: Bytes) -> Quantised:
    return Quantised(_signed(blocks[..., 2:]), _halves(blocks[..., :2]), None, 8)


def _q4_0(blocks: Bytes) -> Quantised:
    return Quantised(_nibbles(blocks[..., 2:]).view(np.int8) - np.int8(8), _halves(blocks[..., :2]), None, 4)


def _q4_1(blocks: Bytes) -> Quantised:
    return Quantised(_nibbles(blocks[..., 4:]), _halves(blocks[..., :2]), _halves(blocks[..., 2:4]), 4)


def _q5_0(blocks: Bytes) -> Quantised:
    integers = _nibbles(blocks[..., 6:]) | _fifth_bits(blocks[..., 2:6])
    return Quantised(integers.view(np.int8) - np.int8(16), _halves(blocks[..., :2]), None, 8)


def _q5_1(blocks: Bytes) -> Quantised:
    integers = _nibbles(blocks[..., 8:]) | _fifth_bits(blocks[..., 4:8])
    return Quantised(integers, _halves(blocks[..., :2]), _halves(blocks[..., 2:4]), 8)


_NON_LINEAR = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.int8)
"""The sixteen steps of IQ4, finer near zero."""


def _iq4_nl(blocks: Bytes) -> Quantised:
    return Quantised(_NON_LINEAR[_nibbles(blocks[..., 2:])], _halves(blocks[..., :2]), None, 8)


# -------------------------------------------------------------------------------------------- types of 256 columns


def _q2_k(blocks: Bytes) -> Quantised:
    packed, scale, minimum = blocks[..., :16], _halves(blocks[..., 80:82]), _halves(blocks[..., 82:84])
    quarters = blocks[..., 16:80].reshape(*blocks.shape[:2], 2, 1, 32)
    integers = (quarters >> np.arange(0, 8, 2, dtype=np.uint8)[:, None]) & np.uint8(3)
    return _of_groups(integers, 16, scale * (packed & 15), -minimum * (packed >> 4), 4)


def _q3_k(blocks: Bytes) -> Quantised:
    scale, packed = _halves(blocks[..., 108:110]), blocks[..., 96:108]
    low = np.concatenate([packed[..., :8] & 15, packed[..., :8] >> 4], axis=-1)
    high = (packed[..., None, 8:12] >> np.arange(0, 8, 2, dtype=np.uint8)[:, None]) & np.uint8(3)
    scales = (low | (high.reshape(low.shape) << 4)).astype(np.int8) - np.int8(32)
    quarters = blocks[..., 32:96].reshape(*blocks.shape[:2], 2, 1, 32)
    integers = (quarters >> np.arange(0, 8, 2, dtype=np.uint8)[:, None]) & np.uint8(3)
    third = (blocks[..., None, :32] >> np.arange(8, dtype=np.uint8)[:, None]) & np.uint8(1)
    integers |= third.reshape(integers.shape) << np.uint8(2)
    return _of_groups(integers.view(np.int8) - np.int8(4), 16, scale * scales, None, 4)


def _q4_k(blocks: Bytes) -> Quantised:
    scales, offsets = _six_bit_scales(blocks)
    return _of_groups(_halves_of_bytes(blocks[..., 16:]), 32, scales, offsets, 4)


def _q5_k(blocks: Bytes) -> Quantised:
    scales, offsets = _six_bit_scales(blocks)
    fifth = (blocks[..., None, 16:48] >> np.arange(8, dtype=np.uint8)[:, None]) & np.uint8(1)
    integers = _halves_of_bytes(blocks[..., 48:])
    return _of_groups(integers | (fifth.reshape(integers.shape) << np.uint8(4)), 32, scales, offsets, 8)


def _q6_k(blocks: Bytes) -> Quantised:
    low = blocks[..., :128].reshape(*blocks.shape[:2], 2, 1, 64)
    low = (low >> np.array([[0], [4]], np.uint8)) & np.uint8(15)
    high = blocks[..., 128:192].reshape(*blocks.shape[:2], 2, 1, 32)
    high = (high >> np.arange(0, 8, 2, dtype=np.uint8)[:, None]) & np.uint8(3)
    integers = low.reshape(high.shape) | (high << np.uint8(4))
    scales = _halves(blocks[..., 208:210]) * _signed(blocks[..., 192:208])
    return _of_groups(integers.view(np.int8) - np.int8(32), 16, scales, None, 8)


def _iq4_xs(blocks: Bytes) -> Quantised:
    high = np.ascontiguousarray(blocks[..., 2:4]).view(np.uint16)
    high = ((high >> np.arange(0, 16, 2, dtype=np.uint16)) & np.uint16(3)).astype(np.uint8)
    low = np.stack([blocks[..., 4:8] & 15, blocks[..., 4:8] >> 4], axis=-1).reshape(high.shape)
    scales = (low | (high << np.uint8(4))).astype(np.int8) - np.int8(32)
    integers = _nibbles(blocks[..., 8:].reshape(*blocks.shape[:2], 8, 16))
    return _of_groups(_NON_LINEAR[integers], 32, _halves(blocks[..., :2]) * scales, None, 8)


# ------------------------------------------------------------------------------------------------------------ bits


def _halves(data: Bytes) -> Floats:
    """Half-precision numbers; the last axis has half as many."""
    return np.ascontiguousarray(data).view(np.float16).astype(np.float32)


def _signed(data: Bytes) -> NDArray[np.int8]:
    return np.ascontiguousarray(data).view(np.int8)


def _nibbles(data: Bytes) -> Bytes:
    """All low halves of the last axis, then all high ones."""
    return np.concatenate([data & np.uint8(15), data >> np.uint8(4)], axis=-1)


def _halves_of_bytes(data: Bytes) -> Bytes:
    """128 bytes: of each 32 first the low halves, then the high ones."""
    quarters = data.reshape(*data.shape[:2], 4, 1, 32)
    halves: Bytes = (quarters >> np.array([[0], [4]], np.uint8)) & np.uint8(15)
    return halves


def _fifth_bits(data: Bytes) -> Bytes:
    """32 bits, as the fifth bit of 32 integers."""
    bits: Bytes = np.unpackbits(np.ascontiguousarray(data), axis=-1, bitorder="little")
    bits <<= np.uint8(4)
    return bits


def _six_bit_scales(blocks: Bytes) -> tuple[Floats, Floats]:
    """Scales and offsets of the eight groups of a Q4_K or Q5_K block: six bits each, in twelve bytes."""
    first, second, third = blocks[..., 4:8], blocks[..., 8:12], blocks[..., 12:16]
    scales = np.concatenate([first & 63, (third & 15) | ((first >> 6) << 4)], axis=-1)
    minima = np.concatenate([second & 63, (third >> 4) | ((second >> 6) << 4)], axis=-1)
    return _halves(blocks[..., :2]) * scales, -_halves(blocks[..., 2:4]) * minima


def _of_groups(integers: Integers, size: int, scales: Floats, offsets: Floats | None, bits: Bits) -> Quantised:
    rows = integers.shape[0]
    return Quantised(
        integers.reshape(rows, -1, size),
        scales.reshape(rows, -1),
        None if offsets is None else offsets.reshape(rows, -1),
        bits,
    )


def _flat(unpack: Callable[[Bytes], Quantised]) -> Callable[[Bytes], Quantised]:
    """For blocks of one group: their scales come as [rows, groups, 1]."""

    def unpack_flat(blocks: Bytes) -> Quantised:
        quantised = unpack(blocks)
        offsets = quantised.offsets
        return Quantised(
            quantised.integers,
            quantised.scales[..., 0],
            None if offsets is None else offsets[..., 0],
            quantised.bits,
        )

    return unpack_flat


_UNPACK: Mapping[str, Callable[[Bytes], Quantised]] = {
    "Q8_0": _flat(_q8_0),
    "Q4_0": _flat(_q4_0),
    "Q4_1": _flat(_q4_1),
    "Q5_0": _flat(_q5_0),
    "Q5_1": _flat(_q5_1),
    "IQ4_NL": _flat(_iq4_nl),
    "Q2_K": _q2_k,
    "Q3_K": _q3_k,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
    "IQ4_XS": _iq4_xs,
}

_BLOCK_BYTES: Mapping[str, int] = {
    "Q8_0": 34, "Q4_0": 18, "Q4_1": 20, "Q5_0": 22, "Q5_1": 24, "IQ4_NL": 18,
    "Q2_K": 84, "Q3_K": 110, "Q4_K": 144, "Q5_K": 176, "Q6_K": 210, "IQ4_XS": 136,
}  # fmt: skip
