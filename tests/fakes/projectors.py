"""Writes small projectors with random weights, as llama.cpp's multimodal part loads them; and pictures and sounds.

Two kinds for pictures: `idefics3`, which cuts pictures into tiles, so that their shape decides how many tokens they
are; and `gemma3`, whose tokens see each other (no causal mask). One for sounds: `ultravox`, a Whisper encoder.
"""

from __future__ import annotations

import math
import random
import struct
import zlib
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np

from fakes.gguf_files import Tensor, Value, write_gguf

WIDTH, HIDDEN, BLOCKS, HEADS = 32, 64, 1, 2
"""Of the encoders."""

TILE = 64
"""Pixels of a side of what the encoder sees at once; a longer picture is cut into such."""

PATCH, SHRINK = 8, 4

STACK, MEL_BINS, WINDOW_FRAMES = 4, 80, 3000

See = Literal["idefics3", "gemma3"]

IMAGE_TOKENS = ("\n\n", "<fake_token_around_image>", "<global-img>", "<start_of_image>", "<end_of_image>")
"""What llama.cpp puts around tiles and pictures of these kinds: the model's vocabulary needs them."""


def write_projector(
    path: Path,
    *,
    projection: int = 32,
    sees: See | None = "idefics3",
    tile: int = TILE,
    hears: bool = False,
    seed: int = 0,
) -> Path:
    """`projection`: the embedding length of the model that it belongs to. `tile`: pixels of a side, for one look."""
    metadata: dict[str, Value] = {
        "general.type": "mmproj",
        "general.file_type": 0,
        "clip.use_gelu": True,
        "clip.has_vision_encoder": sees is not None,
        "clip.has_audio_encoder": hears,
    }
    source = random.Random(seed)
    tensors: list[Tensor] = []
    if sees is not None:
        metadata |= _seeing(sees, projection, tile)
        tensors += [_tensor(source, name, shape) for name, shape in _eye(sees, projection, tile).items()]
    if hears:
        metadata |= _hearing(projection)
        tensors += [_tensor(source, name, shape) for name, shape in _ear(projection).items()]
    return write_gguf(path, architecture="clip", metadata=metadata, tensors=tensors)


def _common(what: str, projection: int) -> dict[str, Value]:
    return {
        f"clip.{what}.embedding_length": WIDTH,
        f"clip.{what}.feed_forward_length": HIDDEN,
        f"clip.{what}.projection_dim": projection,
        f"clip.{what}.block_count": BLOCKS,
        f"clip.{what}.attention.head_count": HEADS,
        f"clip.{what}.attention.layer_norm_epsilon": 1e-5,
    }


def _seeing(kind: See, projection: int, tile: int) -> dict[str, Value]:
    return _common("vision", projection) | {
        "clip.vision.projector_type": kind,
        "clip.vision.image_size": tile,
        "clip.vision.patch_size": PATCH,
        "clip.vision.image_mean": [0.5, 0.5, 0.5],
        "clip.vision.image_std": [0.5, 0.5, 0.5],
        "clip.vision.projector.scale_factor": SHRINK,
        "clip.vision.preproc_image_size": 2 * tile,
    }


def _hearing(projection: int) -> dict[str, Value]:
    return _common("audio", projection) | {
        "clip.audio.projector_type": "ultravox",
        "clip.audio.num_mel_bins": MEL_BINS,
        "clip.audio.projector.stack_factor": STACK,
    }


def _eye(kind: See, projection: int, tile: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "v.patch_embd.weight": (PATCH, PATCH, 3, WIDTH),
        "v.patch_embd.bias": (WIDTH,),
        "v.position_embd.weight": (WIDTH, (tile // PATCH) ** 2),
        "v.post_ln.weight": (WIDTH,),
        "v.post_ln.bias": (WIDTH,),
        **_blocks("v"),
    }
    if kind == "gemma3":
        return shapes | {
            "mm.input_projection.weight": (projection, WIDTH),
            "mm.soft_emb_norm.weight": (WIDTH,),
        }
    return shapes | {"mm.model.fc.weight": (WIDTH * SHRINK**2, projection)}


def _ear(projection: int) -> dict[str, tuple[int, ...]]:
    return {
        "a.conv1d.1.weight": (3, MEL_BINS, WIDTH),
        "a.conv1d.1.bias": (1, WIDTH),
        "a.conv1d.2.weight": (3, WIDTH, WIDTH),
        "a.conv1d.2.bias": (1, WIDTH),
        "a.position_embd.weight": (WIDTH, WINDOW_FRAMES // 2),
        "a.post_ln.weight": (WIDTH,),
        "a.post_ln.bias": (WIDTH,),
        **{name: shape for name, shape in _blocks("a").items() if not name.endswith("attn_k.bias")},
        "mm.a.norm_pre.weight": (WIDTH * STACK,),
        "mm.a.mlp.1.weight": (WIDTH * STACK, 2 * HIDDEN),
        "mm.a.norm_mid.weight": (HIDDEN,),
        "mm.a.mlp.2.weight": (HIDDEN, projection),
    }


def _blocks(letter: str) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    square, up, down = (WIDTH, WIDTH), (WIDTH, HIDDEN), (HIDDEN, WIDTH)
    attention = dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_out"), square)
    matrices = {**attention, "ffn_up": up, "ffn_down": down}
    for block in range(BLOCKS):
        for norm in ("ln1", "ln2"):
            shapes |= {f"{letter}.blk.{block}.{norm}.{part}": (WIDTH,) for part in ("weight", "bias")}
        for name, (columns, rows) in matrices.items():
            shapes[f"{letter}.blk.{block}.{name}.weight"] = (columns, rows)
            shapes[f"{letter}.blk.{block}.{name}.bias"] = (rows,)
    return shapes


def _tensor(source: random.Random, name: str, shape: tuple[int, ...]) -> Tensor:
    """Weights large enough that what goes in shows in what comes out."""
    count = math.prod(shape)
    if name.endswith("bias"):
        numbers = [0.0] * count
    elif ".ln" in name or "norm" in name or "post_ln" in name:
        numbers = [1.0] * count
    else:
        scale = 1 / math.sqrt(count / shape[-1])
        numbers = [source.gauss(0, scale) for _ in range(count)]
    return Tensor(name, shape, data=array("f", numbers).tobytes())


# ---------------------------------------------------------------------------------------------------- pictures, sounds


def png(width: int, height: int, colour: Callable[[int, int], tuple[int, int, int]]) -> bytes:
    """A picture whose pixel at (x, y) is `colour(x, y)`."""
    rows = b"".join(b"\0" + bytes(part for x in range(width) for part in colour(x, y)) for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = (("IHDR", header), ("IDAT", zlib.compress(rows)), ("IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind.encode(), data) for kind, data in chunks)


def plain(colour: tuple[int, int, int], width: int = TILE, height: int = TILE) -> bytes:
    """A picture of one colour."""
    return png(width, height, lambda x, y: colour)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def wav(
    seconds: float, hertz: float, *, rate: int = 16000, channels: int = 1, samples: Literal["u1", "<i2", "<f4"] = "<i2"
) -> bytes:
    """A tone, the same in each of the channels."""
    turns = np.arange(int(seconds * rate)) * (hertz / rate)
    tone = np.repeat(np.sin(2 * np.pi * turns) * (12000 / 32768), channels)
    middle, most = {"u1": (127.5, 127.5), "<i2": (0, 32768), "<f4": (0, 1)}[samples]
    data = (middle + most * tone).astype(samples).tobytes()
    size = np.dtype(samples).itemsize
    code = 3 if samples == "<f4" else 1
    form = struct.pack("<HHIIHH", code, channels, rate, channels * size * rate, channels * size, 8 * size)
    parts = b"WAVE" + b"fmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(parts)) + parts


def mp3(frames: int, *, head: bytes = b"\xff\xfb\x90\xc4", size: int = 417) -> bytes:
    """Silence: frames of 128 kilobits and 44,100 Hz, unless `head` and `size` say otherwise."""
    return (head + bytes(size - 4)) * frames
