"""What packed tiles stand for, read in NumPy as `native/layout.h` describes them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fakes.native import LANES, Bytes, Doubles

SUPER = 8
FORMATS = ("TWO", "FOUR", "FOUR_0", "FIVE", "FIVE_0", "SIX", "EIGHT", "CURVE", "MX", "HALF", "BRAIN", "SINGLE")
CURVE = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113])
MX = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12])

_GROUP_BYTES = dict(zip(FORMATS, (256, 320, 256, 384, 320, 3392, 512, 256, 256, 1024, 1024, 2048), strict=True))
_BEHIND = {"FOUR_0", "FIVE_0", "EIGHT", "CURVE", "MX"}


def unpacked(packed: Bytes, form: int, outputs: int, k: int) -> Doubles:
    """[outputs][k], each weight as its factors make it, not rounded."""
    name, groups = FORMATS[form], -(-k // 32)
    tiles = packed.reshape(-(-outputs // LANES), -1)
    found = np.concatenate([_tile(tile, name, groups) for tile in tiles])
    assert not found[outputs:].any(), "rows beyond the last are zeros"
    assert not found[:, k:].any(), "weights beyond the last are zeros"
    return found[:outputs, :k]


def _tile(tile: Bytes, name: str, groups: int) -> Doubles:
    """[16][groups * 32]"""
    factor = tile[:64].view(np.float32).astype(np.float64)
    size = _GROUP_BYTES[name]
    many = -(-groups // SUPER) if name == "SIX" else groups
    body = tile[64 : 64 + many * size].reshape(many, size)
    behind = tile[64 + many * size :]
    if name in {"HALF", "BRAIN", "SINGLE"}:
        weights = _floats(body, name)
    elif name == "SIX":
        weights = _six(body)
    else:
        weights = _quantised(body, name, behind[: groups * 32].view(np.float16) if name in _BEHIND else None)
    return factor[:, None] * weights.transpose(1, 0, 2).reshape(LANES, -1)


def _floats(body: Bytes, name: str) -> Doubles:
    if name == "BRAIN":
        flat: NDArray[Any] = (body.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    else:
        flat = body.view(np.float16 if name == "HALF" else np.float32)
    return flat.reshape(len(body), 32, LANES).transpose(0, 2, 1).astype(np.float64)


def _fields(vectors: Bytes, bits: int) -> Bytes:
    """Of [group][vectors of 64 bytes]: vector j of a group to [group][lane][weight], `bits` a weight."""
    count = len(vectors)
    lanes = vectors.reshape(count, -1, LANES, 4)
    fields = [lanes >> shift & ((1 << bits) - 1) for shift in range(0, 8, bits)]
    return np.stack(fields, axis=2).transpose(0, 3, 1, 2, 4).reshape(count, LANES, 32)


def _quantised(body: Bytes, name: str, scales: NDArray[np.float16] | None) -> Doubles:
    count = len(body)
    if name == "TWO":
        q = _fields(body[:, :128], 2).astype(np.float64).reshape(count, LANES, 2, 16)
        both = _halves(body[:, 128:]).reshape(count, 2, 2, LANES).transpose(1, 0, 3, 2)
        return (q * both[0][..., None] + both[1][..., None]).reshape(count, LANES, 32)
    q = (_fields(body[:, :512], 8) if name == "EIGHT" else _fields(body[:, :256], 4)).astype(np.int64)
    if name in {"FIVE", "FIVE_0"}:
        q |= _fields(body[:, 256:320], 1).astype(np.int64) << 4
    if scales is not None:
        scale = scales.astype(np.float64).reshape(count, LANES, 1)
        values = {"FOUR_0": q - 8, "FIVE_0": q - 16, "EIGHT": q - 128}
        values |= {"CURVE": CURVE[q % 16], "MX": MX[q % 16]}
        return scale * values[name]
    scale, least = _halves(body[:, -64:]).reshape(count, 2, LANES, 1).transpose(1, 0, 2, 3)
    return scale * q + least


def _six(body: Bytes) -> Doubles:
    many = len(body)
    groups = np.ascontiguousarray(body[:, : SUPER * 384]).reshape(many * SUPER, 384)
    q = _fields(groups[:, :256], 4).astype(np.float64) + 16 * _fields(groups[:, 256:], 2).astype(np.float64) - 32
    steps = body[:, SUPER * 384 : SUPER * 416].copy().view(np.int8).reshape(many * SUPER, 2, LANES).transpose(0, 2, 1)
    d = np.repeat(body[:, SUPER * 416 :].copy().view(np.float32), SUPER, axis=0)
    weights = q.reshape(-1, LANES, 2, 16) * steps[..., None] * d[..., None, None]
    return weights.reshape(many * SUPER, LANES, 32)


def _halves(raw: Bytes) -> Doubles:
    return np.ascontiguousarray(raw).view(np.float16).astype(np.float64)
