"""Models in several files, projectors and adapters that are damaged, or that somebody made to do harm."""

from __future__ import annotations

import random
import struct
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fakes.gguf_files import Int32, Tensor, Uint16, Value, gguf_bytes, write_tiny_llama
from fakes.projectors import IMAGE_TOKENS, write_projector
from puna.model.ggml import TensorType
from puna.model.gguf import read_header

LENGTHS = (0, 1, 3, 1 << 16, (1 << 31) - 1, 1 << 31, 1 << 32, 1 << 62, (1 << 64) - 1)
"""Of a tensor's side, an array, a text."""


@dataclass(frozen=True)
class Hostile:
    """`files` make a model, with `adapters`; `sees`: it is asked about a picture."""

    name: str
    files: Mapping[str, bytes]
    adapters: Mapping[str, bytes]
    sees: bool = False


def hostile_parts() -> list[Hostile]:
    return [*_shards(), *_projectors(), *_adapters()]


def _flipped(data: bytes, source: random.Random, most: int) -> bytes:
    """Some of its first `most` bytes are others."""
    changed = bytearray(data)
    for _ in range(source.randint(1, 4)):
        changed[source.randrange(min(most, len(changed)))] = source.choice((0, 1, 0x7F, 0x80, 0xFF))
    return bytes(changed)


def _number(data: bytes, at: int, form: str, value: int) -> bytes:
    return data[:at] + struct.pack(form, value) + data[at + struct.calcsize(form) :]


# ------------------------------------------------------------------------------------------------------------- shards


def _shards() -> Iterator[Hostile]:
    names = [f"x-{number:05}-of-00002.gguf" for number in (1, 2)]
    with tempfile.TemporaryDirectory() as directory:
        first = write_tiny_llama(Path(directory) / "x.gguf", head=32, shards=2)
        one, two = first.read_bytes(), first.with_name(names[1]).read_bytes()
        held = [Tensor(t.name, t.shape) for t in read_header(first.with_name(names[1])).tensors]
        every = len(held) + len(read_header(first).tensors)

    def pair(name: str, second: bytes | None, start: bytes = one) -> Hostile:
        files = {names[0]: start} | ({} if second is None else {names[1]: second})
        return Hostile(f"shard {name}", files, {})

    def second(tensors: Sequence[Tensor] = held, alignment: int = 32, **split: Value) -> bytes:
        said: dict[str, Value] = {
            "split.no": Uint16(1), "split.count": Uint16(2), "split.tensors.count": Int32(every)
        }  # fmt: skip
        said |= {name.replace("_", ".", 1).replace("tensors_", "tensors."): value for name, value in split.items()}
        return gguf_bytes(architecture="", metadata=said, tensors=tensors, alignment=alignment)

    yield pair("whole", two)
    yield pair("missing", None)
    yield pair("twice", one)
    yield pair("alone", None, two)
    yield pair("empty", b"")
    yield pair("text", b"no model at all" * 40)
    for length in (3, 24, 40, 200, len(two) // 2, len(two) - 1):
        yield pair(f"cut at {length}", two[:length])
    for value in (0, 2, 7, 65535):
        yield pair(f"number {value}", second(split_no=Uint16(value)))
        yield pair(f"of {value}", second(split_count=Uint16(value)))
    for tensors in (-1, 0, every + 1, 2**31 - 1):
        yield pair(f"with {tensors} tensors", second(split_tensors_count=Int32(tensors)))
    yield pair("number as text", second(split_no="one"))
    yield pair("with another architecture", gguf_bytes(architecture="clip", tensors=held))
    yield pair("with other numbers", second(llama_block_count=1 << 30))
    yield pair("tensor that is in the first", second([replace(held[0], name="token_embd.weight"), *held[1:]]))
    yield pair("tensor twice", second([held[0], *held[:-1]]))
    yield pair("tensor missing", second(held[:-1]))
    yield pair("tensor of no name", second([replace(held[0], name=""), *held[1:]]))
    for side in LENGTHS:
        yield pair(
            f"side {side}", second([replace(held[0], shape=(side, held[0].shape[-1]), data=b"\0" * 64), *held[1:]])
        )
    yield pair("five sides", second([replace(held[0], shape=(32, 1, 1, 1, 64)), *held[1:]]))
    yield pair("no side", second([replace(held[0], shape=(), data=b"\0" * 64), *held[1:]]))
    for offset in (1, 1 << 20, 1 << 40, (1 << 64) - 32):
        yield pair(f"offset {offset}", second([replace(held[0], offset=offset), *held[1:]]))
    for place, what in ((8, "tensors"), (16, "pairs"), (24, "a key's length")):
        for count in (1 << 20, 1 << 60, (1 << 64) - 1):
            yield pair(f"{count} {what}", _number(two, place, "<Q", count))
    yield pair("version", _number(two, 4, "<I", 99))
    yield pair(
        "not a number", second([replace(held[0], data=b"\xff\xff\xff\x7f" * (len(held[0].bytes) // 4)), *held[1:]])
    )
    for seed in range(12):
        yield pair(f"bytes {seed}", _flipped(two, random.Random(seed), 400))


# --------------------------------------------------------------------------------------------------------- projectors


_CLIP: tuple[tuple[str, Sequence[Value]], ...] = (
    ("clip.vision.image_size", (0, 1, 63, 1 << 20, (1 << 31) - 1, 1 << 31, -1)),
    ("clip.vision.patch_size", (0, 7, 1 << 31, -8)),
    ("clip.vision.block_count", (0, 2, 1 << 20, (1 << 31) - 1, -1)),
    ("clip.vision.embedding_length", (0, 31, 1 << 31)),
    ("clip.vision.feed_forward_length", (0, 1 << 31)),
    ("clip.vision.projection_dim", (0, 64, 1 << 31)),
    ("clip.vision.attention.head_count", (0, 3, 1 << 31, -2)),
    ("clip.vision.attention.layer_norm_epsilon", (float("nan"), -1.0, "x")),
    ("clip.vision.projector.scale_factor", (0, 3, 1 << 31)),
    ("clip.vision.projector_type", ("", "x", "gemma3", "qwen2vl_merger", "minicpmv", 4)),
    ("clip.vision.image_mean", ([], [0.5], [float("nan")] * 3, "x")),
    ("clip.vision.image_std", ([0.0] * 3, [])),
    ("clip.has_vision_encoder", (False, 7)),
    ("clip.has_audio_encoder", (True,)),
    ("general.architecture", ("llama", "", 3)),
)


def _projectors() -> Iterator[Hostile]:
    with tempfile.TemporaryDirectory() as directory:
        base = write_tiny_llama(Path(directory) / "x.gguf", head=32, more_tokens=IMAGE_TOKENS).read_bytes()
        path = write_projector(Path(directory) / "mmproj.gguf")
        whole, wide = path.read_bytes(), write_projector(Path(directory) / "w.gguf", projection=64).read_bytes()
        header = read_header(path, arrays=True)
        hearing = write_projector(Path(directory) / "h.gguf", sees=None, hears=True).read_bytes()

    tensors = [Tensor(t.name, t.shape) for t in header.tensors]
    metadata: dict[str, Value] = dict(header.metadata)  # type: ignore[arg-type]

    def of(name: str, data: bytes, *more: bytes) -> Hostile:
        others = {f"mmproj-{number}.gguf": each for number, each in enumerate(more)}
        return Hostile(f"projector {name}", {"x.gguf": base, "mmproj.gguf": data} | others, {}, sees=True)

    def made(change: Mapping[str, Value], parts: Sequence[Tensor] = tensors) -> bytes:
        return gguf_bytes(architecture="clip", metadata={**metadata, **change}, tensors=parts)

    yield of("whole", whole)
    yield of("of a wider model", wide)
    yield of("twice", whole, whole)
    yield of("that hears", hearing)
    for key, values in _CLIP:
        for value in values:
            yield of(f"{key.removeprefix('clip.')} {value!r}", made({key: value}))
    for number in range(0, len(tensors), 3):
        rest = [*tensors[:number], *tensors[number + 1 :]]
        yield of(f"without {tensors[number].name}", made({}, rest))
        one = tensors[number]
        yield of(f"with {one.name} turned", made({}, [*rest, replace(one, shape=(*one.shape[::-1], 1))]))
    for side in LENGTHS:
        yield of(f"side {side}", made({}, [replace(tensors[0], shape=(side, 1), data=b"\0" * 64), *tensors[1:]]))
    for seed in range(12):
        yield of(f"bytes {seed}", _flipped(whole, random.Random(seed), 1200))


# ----------------------------------------------------------------------------------------------------------- adapters


def _adapters() -> Iterator[Hostile]:
    with tempfile.TemporaryDirectory() as directory:
        base = write_tiny_llama(Path(directory) / "x.gguf", head=32).read_bytes()
        projector = write_projector(Path(directory) / "p.gguf").read_bytes()

    query, rank = "blk.0.attn_q.weight", 4
    down, up = Tensor(f"{query}.lora_a", (32, rank)), Tensor(f"{query}.lora_b", (rank, 128))

    def of(name: str, *tensors: Tensor, **change: Value) -> Hostile:
        said: dict[str, Value] = {"general.type": "adapter", "adapter.type": "lora", "adapter.lora.alpha": 8.0}
        said |= {key.replace("__", "."): value for key, value in change.items()}
        return raw(name, gguf_bytes(metadata=said, tensors=tensors or (down, up)))

    def raw(name: str, data: bytes) -> Hostile:
        return Hostile(f"adapter {name}", {"x.gguf": base}, {"a.gguf": data})

    yield of("whole")
    yield raw("that is the model", base)
    yield raw("that is a projector", projector)
    yield raw("empty", b"")
    alphas: Sequence[Value] = (float("nan"), float("inf"), 0.0, -1.0, 1e38, "x", 8, [], True)
    for alpha in alphas:
        yield of(f"alpha {alpha!r}", adapter__lora__alpha=alpha)
    for key, values in {
        "adapter__type": ("", "control_vector", 3),
        "general__type": ("model", "", 1),
        "general__architecture": ("qwen2", ""),
    }.items():  # fmt: skip
        for value in values:
            yield of(f"{key} {value!r}", **{key: value})
    yield of("of nothing that there is", Tensor("blk.9.x.lora_a", (32, 4)), Tensor("blk.9.x.lora_b", (4, 128)))
    yield of("of a thousand", *(Tensor(f"n.{n}.lora_{end}", (4, 4)) for n in range(500) for end in "ab"))
    yield of("half", down)
    yield of("other half", up)
    yield of("twice", down, up, down, up)
    yield of("of no end", Tensor(query, (32, 128)))
    yield of("of ranks that differ", down, replace(up, shape=(8, 128)))
    yield of("turned", replace(down, shape=(rank, 32)), replace(up, shape=(128, rank)))
    yield of("of a rank above the model", replace(down, shape=(32, 5000)), replace(up, shape=(5000, 128)))
    yield of("flat", replace(down, shape=(32 * rank,)), replace(up, shape=(128 * rank,)))
    yield of("of embeddings", Tensor("token_embd.weight.lora_a", (4, 32)), Tensor("token_embd.weight.lora_b", (4, 261)))
    yield of("of embeddings that do not fit", *(Tensor(f"token_embd.weight.lora_{e}", (7, 9)) for e in "ab"))
    yield of("of a norm", Tensor("output_norm.weight.lora_a", (32, 4)), Tensor("output_norm.weight.lora_b", (4, 1)))
    yield of("not a number", replace(down, data=b"\xff\xff\xff\x7f" * 128), up)
    yield of("of small numbers", replace(down, type=TensorType.Q8_0), up)
    for side in LENGTHS:
        yield of(
            f"side {side}", replace(down, shape=(32, side), data=b"\0" * 64), replace(up, shape=(side, 128), data=b"")
        )
    for offset in (1, 1 << 40, (1 << 64) - 32):
        yield of(f"offset {offset}", replace(down, offset=offset), up)
    whole: Callable[[], bytes] = lambda: of("").adapters["a.gguf"]  # noqa: E731
    for length in (3, 30, 150, len(whole()) - 1):
        yield raw(f"cut at {length}", whole()[:length])
    for seed in range(12):
        yield raw(f"bytes {seed}", _flipped(whole(), random.Random(seed), 350))
