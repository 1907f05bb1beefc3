"""Writes small GGUF files: any metadata, a vocabulary, a chat template, tensors. Values are typed by their kind.

`write_gguf` writes what it is told, sensible or not. `write_tiny_llama` writes a model that engines can load: random
weights, a byte vocabulary, ChatML's special tokens.
"""

from __future__ import annotations

import math
import random
import struct
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from puna.model.ggml import TensorType

Value = bool | int | float | str | Sequence[bool | int | float | str]

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

FOREIGN_TEMPLATES = (
    "{% for m in messages %}{{ m.content | items }}",
    "{{ messages | nosuchfilter }}",
    "{{ raise_exception('never') }}",
    "{% for m in messages %}{{ m.role.nothing.here() }}{% endfor %}",
)
"""Chat templates that llama.cpp's own parser, or what it tries at a load, does not take."""


class Uint16(int):
    """A number that is written in 16 bits."""


class Int32(int):
    """A number that is written with a sign."""


_UINT16 = 2
_UINT32, _INT32, _FLOAT32, _BOOL, _STRING, _ARRAY, _UINT64, _INT64 = 4, 5, 6, 7, 8, 9, 10, 11


@dataclass(frozen=True)
class Tensor:
    """`data` None: zeros of the right length. `offset` None: the next free one."""

    name: str
    shape: tuple[int, ...]
    type: TensorType = TensorType.F32
    data: bytes | None = None
    offset: int | None = None

    @property
    def bytes(self) -> bytes:
        return bytes(self.type.bytes_of(math.prod(self.shape))) if self.data is None else self.data


def gguf_bytes(
    *,
    architecture: str = "llama",
    metadata: Mapping[str, Value] | None = None,
    chat_template: str | None = None,
    tokens: Sequence[str] | None = None,
    tensors: Sequence[Tensor] = (),
    version: int = 3,
    alignment: int = 32,
) -> bytes:
    """A whole file. `metadata` wins over what the other arguments make; keys are written in its order after theirs."""
    pairs: dict[str, Value] = {"general.architecture": architecture} if architecture else {}
    if alignment != 32:
        pairs["general.alignment"] = alignment
    if tokens is not None:
        pairs["tokenizer.ggml.tokens"] = list(tokens)
    if chat_template is not None:
        pairs["tokenizer.chat_template"] = chat_template
    pairs.update(metadata or {})
    infos, data = _tensors(tensors, alignment)
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(pairs))
    head += b"".join(_text(key) + _typed(value) for key, value in pairs.items()) + infos
    return head + bytes(-len(head) % alignment) + data if tensors else head


def write_gguf(path: Path, **arguments: object) -> Path:
    """`gguf_bytes` to a file."""
    path.write_bytes(gguf_bytes(**arguments))  # type: ignore[arg-type]
    return path


def write_tiny_llama(
    path: Path,
    *,
    chat_template: str | None = CHATML,
    metadata: Mapping[str, Value] | None = None,
    seed: int = 0,
    context_length: int = 512,
    more_tokens: Sequence[str] = (),
    kind: TensorType = TensorType.F32,
    norm: float = 1.0,
    head: int = 8,
    shards: int = 1,
    more_tensors: Sequence[Tensor] = (),
    alignment: int = 32,
) -> Path:
    """A llama of 2 layers and some 60,000 random parameters over a byte vocabulary, and `more_tokens` at its end.

    `shards`: in how many files, as llama.cpp splits them; gives the path of the first.

    `kind`: of its matrices, F32 or Q8_0. `norm`: in all its norms; one that is no number makes all that it computes so.
    `head`: the size of a head of attention. With 8 the engine cpu leaves the model to llama.cpp, with 32 it takes it.
    """
    width, hidden, layers, heads, heads_kv = 32, 64, 2, 4, 2
    tokens = [*byte_tokens(), *more_tokens]
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (width, len(tokens)), "output_norm.weight": (width,)}
    for layer in range(layers):
        shapes |= {
            f"blk.{layer}.attn_norm.weight": (width,),
            f"blk.{layer}.attn_q.weight": (width, head * heads),
            f"blk.{layer}.attn_k.weight": (width, head * heads_kv),
            f"blk.{layer}.attn_v.weight": (width, head * heads_kv),
            f"blk.{layer}.attn_output.weight": (head * heads, width),
            f"blk.{layer}.ffn_norm.weight": (width,),
            f"blk.{layer}.ffn_gate.weight": (width, hidden),
            f"blk.{layer}.ffn_up.weight": (width, hidden),
            f"blk.{layer}.ffn_down.weight": (hidden, width),
        }
    source = random.Random(seed)
    tensors = []
    for name, shape in shapes.items():
        of = kind if len(shape) > 1 else TensorType.F32
        tensors.append(Tensor(name, shape, of, _packed(_floats(source, shape, norm if "norm" in name else None), of)))
    special = len(tokens) - len(SPECIAL_TOKENS) - len(more_tokens)
    pairs: dict[str, Value] = {
        "general.name": "Tiny",
        "general.file_type": 0,
        "llama.block_count": layers,
        "llama.context_length": context_length,
        "llama.embedding_length": width,
        "llama.feed_forward_length": hidden,
        "llama.attention.head_count": heads,
        "llama.attention.head_count_kv": heads_kv,
        "llama.attention.key_length": head,
        "llama.attention.value_length": head,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": head,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.token_type": [1] * special + [3] * (len(tokens) - special),
        "tokenizer.ggml.merges": ["Ġ t", "h e"],
        "tokenizer.ggml.bos_token_id": special + 1,
        "tokenizer.ggml.eos_token_id": special + 2,
        "tokenizer.ggml.unknown_token_id": special,
        "tokenizer.ggml.padding_token_id": special,
        "tokenizer.ggml.add_bos_token": False,
    }
    pairs |= dict(metadata or {})
    tensors += more_tensors
    if shards > 1:
        return write_shards(path, shards, tensors, metadata=pairs, chat_template=chat_template, tokens=tokens)
    return write_gguf(
        path, metadata=pairs, chat_template=chat_template, tokens=tokens, tensors=tensors, alignment=alignment
    )


def write_shards(
    path: Path,
    count: int,
    tensors: Sequence[Tensor],
    *,
    metadata: Mapping[str, Value],
    chat_template: str | None = None,
    tokens: Sequence[str] | None = None,
) -> Path:
    """`<stem>-00001-of-0000N.gguf` and so on beside `path`, the metadata in the first. Gives the first's path."""
    paths = [path.with_name(f"{path.stem}-{number:05}-of-{count:05}.gguf") for number in range(1, count + 1)]
    each = -(-len(tensors) // count)
    for number, one in enumerate(paths):
        split: dict[str, Value] = {
            "split.no": Uint16(number),
            "split.count": Uint16(count),
            "split.tensors.count": Int32(len(tensors)),
        }
        held = tensors[number * each : (number + 1) * each]
        if number == 0:
            data = gguf_bytes(metadata={**metadata, **split}, chat_template=chat_template, tokens=tokens, tensors=held)
        else:
            data = gguf_bytes(architecture="", metadata=split, tensors=held)
        one.write_bytes(data)
    return paths[0]


SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def byte_tokens() -> list[str]:
    """The 256 bytes as byte-level BPE writes them, two merges, then SPECIAL_TOKENS."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    letters = [chr(byte if byte in printable else next(others)) for byte in range(256)]
    return [*letters, "Ġt", "he", *SPECIAL_TOKENS]


def _floats(source: random.Random, shape: tuple[int, ...], each: float | None) -> array[float]:
    count = math.prod(shape)
    return array("f", [each] * count if each is not None else [source.gauss(0, 0.1) for _ in range(count)])


def _packed(numbers: array[float], kind: TensorType) -> bytes:
    """Q8_0: blocks of 32, each a scale in 16 bits and a byte a number."""
    if kind is TensorType.F32:
        return numbers.tobytes()
    assert kind is TensorType.Q8_0
    blocks = bytearray()
    for begin in range(0, len(numbers), 32):
        block = numbers[begin : begin + 32]
        scale = max(map(abs, block)) / 127
        blocks += struct.pack("<e32b", scale, *(round(number / scale) if scale else 0 for number in block))
    return bytes(blocks)


def _tensors(tensors: Sequence[Tensor], alignment: int) -> tuple[bytes, bytes]:
    infos, data = b"", bytearray()
    for tensor in tensors:
        offset = len(data) if tensor.offset is None else tensor.offset
        infos += _text(tensor.name) + struct.pack("<I", len(tensor.shape))
        infos += struct.pack(f"<{len(tensor.shape)}QIQ", *tensor.shape, tensor.type.value, offset)
        data += tensor.bytes + bytes(-len(tensor.bytes) % alignment)
    return infos, bytes(data)


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _typed(value: Value) -> bytes:
    number = _type(value)
    if number != _ARRAY:
        return struct.pack("<I", number) + _untyped(number, value)
    assert isinstance(value, Sequence)
    items = list(value)
    element = max((_type(item) for item in items), default=_INT32)
    small = all(not isinstance(item, int) or item < 2**31 for item in items)
    element = _INT32 if element == _UINT32 and small else element
    head = struct.pack("<IIQ", _ARRAY, element, len(items))
    return head + b"".join(_untyped(element, item) for item in items)


def _type(value: Value) -> int:
    if isinstance(value, bool):
        return _BOOL
    if isinstance(value, Uint16 | Int32):
        return _UINT16 if isinstance(value, Uint16) else _INT32
    if isinstance(value, int):
        return _INT32 if -(2**31) <= value < 0 else _INT64 if value < 0 else _UINT32 if value < 2**32 else _UINT64
    if isinstance(value, float):
        return _FLOAT32
    return _STRING if isinstance(value, str) else _ARRAY


def _untyped(number: int, value: Value) -> bytes:
    if isinstance(value, str):
        return _text(value)
    codes = {_UINT16: "H", _UINT32: "I", _INT32: "i", _FLOAT32: "f", _BOOL: "?", _UINT64: "Q", _INT64: "q"}
    return struct.pack(f"<{codes[number]}", value)
