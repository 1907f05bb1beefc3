"""What engines are told of a Model: facts, and its files, which their errors name by it. Of files only their sizes are
looked at, and the headers of projectors.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from puna.engine import memory
from puna.engine.engine import ModelFacts
from puna.engine.runner import ModelFiles
from puna.errors import InvalidRequest, PunaError
from puna.model.gguf import read_header
from puna.types import MOST_CONTEXT

if TYPE_CHECKING:
    from puna.model.gguf import Header
    from puna.model.model import Model

DEFAULT_CONTEXT = 4096


def facts_of(model: Model) -> ModelFacts:
    projectors = [header for header in map(_header, model.projectors) if header is not None]
    return ModelFacts(
        architecture=model.header.architecture,
        types=frozenset(tensor.type.name for tensor in model.header.tensors),
        metadata=model.header.metadata,
        layout=layout(
            model.header,
            sum(path.stat().st_size for path in (*model.projectors, *model.adapters)),
            max(map(encoded, projectors), default=0),
        ),
        projectors=len(model.projectors),
        adapters=len(model.adapters),
        mixed=model.header.holds_projector,
        kinds=model.header.ranks_kinds,
        encoders=frozenset(kind for header in projectors for kind in memory.projector_kinds(header)),
    )


def files_of(model: Model) -> ModelFiles:
    return ModelFiles(
        weights=model.weights,
        digest=model.weights_digest.hex,
        architecture=model.header.architecture,
        quantization=model.header.quantization,
        projectors=model.projectors,
        adapters=model.adapters,
        name=model.name.short,
        pooled=model.header.pooling_type is not None,
        shards=model.shards,
        ranks=model.header.ranks,
    )


def named(message: str, files: ModelFiles) -> str:
    """What an engine says of a model's files, with the model's name in place of their paths, which are digests."""
    for path in (*files.whole, *files.projectors, *files.adapters):
        for spelled in dict.fromkeys((str(path.resolve()), str(path), path.name)):
            message = message.replace(spelled, f"a file of {files.name}")
    return message


def context_of(said: int | None, default: int, trained: int | None) -> int:
    """Tokens per slot: what was `said`, else `default`, else DEFAULT_CONTEXT; no more than the model was trained on.

    A file that tells no length has MOST_CONTEXT.
    """
    if said is not None and said < 1:
        raise InvalidRequest("num_ctx must be at least 1", param="num_ctx")
    return min(said or default or DEFAULT_CONTEXT, trained or MOST_CONTEXT)


def trained(model: ModelFacts) -> int:
    """Tokens that a model's file says it was trained on; else MOST_CONTEXT."""
    length = model.metadata.get(f"{model.architecture}.context_length")
    return length if isinstance(length, int) and length > 0 else MOST_CONTEXT


WINDOW_PERIODS = {"gemma2": 2, "gemma3": 6, "gpt-oss": 2, "cohere2": 4}
"""Families whose layers, but for each so manieth, look back over a window, where their files do not say it."""


SOUND = 1500
"""Places that an encoder of Whisper's kind hears at once."""

ANY_SIZE: Mapping[str, tuple[int, int]] = {
    "qwen2vl_merger": (4096, 2),
    "qwen2.5vl_merger": (4096, 2),
    "qwen3vl_merger": (4096, 2),
    "glm4v": (4096, 2),
    "pixtral": (1024, 1),
    "lightonocr": (1024, 1),
    "kimivl": (1024, 2),
    "gemma4v": (280, 3),
    "gemma4uv": (280, 3),
    "lfm2": (256, 2),
}
"""Kinds of projectors that see a picture in its own size, by llama.cpp's bounds: tokens of one at most, and places of a
side that become one token where the header does not say how many."""


def _header(projector: Path) -> Header | None:
    """None of a file that says nothing: what is wrong with it, its load will tell."""
    try:
        return read_header(projector)
    except (PunaError, OSError):
        return None


def encoded(header: Header) -> int:
    """Bytes that a projector takes to encode a sound, or the largest image that it sees at once; 0 where its header
    does not tell.
    """

    def number(name: str) -> int:
        return max(header.number(f"clip.{name}") or 0, 0)

    patch = number("vision.patch_size") or 1
    side = number("vision.image_size") // patch
    seen = side * side
    for kind in memory.projector_kinds(header) & ANY_SIZE.keys():
        tokens, merged = ANY_SIZE[kind]
        pixels = number("vision.image_max_pixels")
        seen = pixels // patch**2 if pixels else tokens * (number("vision.spatial_merge_size") or merged) ** 2
    return max(
        memory.encoding(places, number(f"{what}.embedding_length"), number(f"{what}.feed_forward_length"))
        for what, places in (("vision", seen), ("audio", SOUND))
    )


def layout(header: Header, beside: int, media: int = 0) -> memory.ModelLayout:
    """What decides of a model's memory. `beside`: bytes of its projectors and adapters; `media`: as of `encoded`."""
    lengths = {name: header.metadata.get(f"{header.architecture}.attention.{name}_length") for name in ("key", "value")}
    inner, size, groups = (
        max(header.number(f"{header.architecture}.ssm.{name}") or 0, 0)
        for name in ("inner_size", "state_size", "group_count")
    )
    sizes = {tensor.name: tensor.size for tensor in header.tensors}
    table = sizes.get("token_embd.weight", 0)
    own_head = "output.weight" in sizes
    return memory.shape(
        weights=sum(sizes.values()) + beside,
        vocabulary=header.vocabulary_size or 0,
        embedding=header.embedding_length or 0,
        blocks=header.block_count or 0,
        heads=header.head_count or 0,
        kv_heads=header.counts(f"{header.architecture}.attention.head_count_kv") or header.head_count_kv,
        key=lengths["key"] if isinstance(lengths["key"], int) else None,
        value=lengths["value"] if isinstance(lengths["value"], int) else None,
        interval=header.number(f"{header.architecture}.full_attention_interval"),
        channels=inner + 2 * groups * size if inner else None,
        state=inner * size,
        near=header.flags(f"{header.architecture}.attention.sliding_window_pattern") or (),
        near_length=header.number(f"{header.architecture}.attention.key_length_swa"),
        shared=header.number(f"{header.architecture}.attention.shared_kv_layers") or 0,
        window=header.number(f"{header.architecture}.attention.sliding_window"),
        period=header.number(f"{header.architecture}.attention.sliding_window_pattern")
        or WINDOW_PERIODS.get(header.architecture),
        media=media,
        looked_up=sizes.get("per_layer_token_embd.weight", 0) + (table if own_head else 0),
        tied=0 if own_head else table,
    )
