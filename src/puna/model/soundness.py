"""Soundness: whether what a model file says of itself can be true. One table of facts; checked when a header is read.

Every number that an engine, the scheduler or an answer takes from a header is bounded here, and compared with the
tensors where these tell it too. Whoever reads a header later may trust it. Pure.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from puna.model.metadata import ArrayInfo, MetadataValue, ValueType, in_words, numbers_of, texts_of

MAX_LAYERS = 4096
"""Some twenty times those of the deepest models."""


class Unsound(Exception):
    """Names the key and what it says."""


@dataclass(frozen=True, slots=True)
class WholeRange:
    """A whole number. `each`: it may be a list, one for each layer."""

    least: int
    most: int
    each: bool = False


@dataclass(frozen=True, slots=True)
class RealRange:
    """A number. `above`: it is more than the least."""

    least: float
    most: float
    above: bool = False


COUNTS: Mapping[str, WholeRange] = {
    "block_count": WholeRange(0, MAX_LAYERS),
    "context_length": WholeRange(1, 1 << 27),
    "embedding_length": WholeRange(1, 1 << 20),
    "vocab_size": WholeRange(1, 1 << 22),
    "feed_forward_length": WholeRange(0, 1 << 22, each=True),
    "attention.head_count": WholeRange(0, 1 << 14, each=True),
    "attention.head_count_kv": WholeRange(0, 1 << 14, each=True),
    "attention.key_length": WholeRange(1, 1 << 16),
    "attention.value_length": WholeRange(1, 1 << 16),
    "attention.key_length_swa": WholeRange(1, 1 << 16),
    "attention.value_length_swa": WholeRange(1, 1 << 16),
    "attention.shared_kv_layers": WholeRange(0, MAX_LAYERS),
    "attention.sliding_window": WholeRange(0, 1 << 32, each=True),
    "rope.dimension_count": WholeRange(0, 1 << 16),
    "rope.dimension_count_swa": WholeRange(0, 1 << 16),
    "embedding_length_per_layer_input": WholeRange(0, 1 << 20),
    "rope.scaling.original_context_length": WholeRange(1, 1 << 27),
    "expert_count": WholeRange(0, 1 << 14),
    "expert_used_count": WholeRange(0, 1 << 14, each=True),
    "expert_shared_count": WholeRange(0, 1 << 14),
    "expert_feed_forward_length": WholeRange(0, 1 << 22, each=True),
    "leading_dense_block_count": WholeRange(0, MAX_LAYERS),
    "nextn_predict_layers": WholeRange(0, MAX_LAYERS),
    "pooling_type": WholeRange(0, 16),
    "vision.block_count": WholeRange(0, MAX_LAYERS),
    "vision.embedding_length": WholeRange(1, 1 << 20),
    "vision.attention.head_count": WholeRange(0, 1 << 14),
    "vision.feed_forward_length": WholeRange(0, 1 << 22),
    "vision.projection_dim": WholeRange(0, 1 << 20),
    "vision.image_size": WholeRange(1, 1 << 13),
    "vision.patch_size": WholeRange(1, 1 << 12),
    "audio.block_count": WholeRange(0, MAX_LAYERS),
    "audio.embedding_length": WholeRange(1, 1 << 20),
    "audio.attention.head_count": WholeRange(0, 1 << 14),
    "audio.feed_forward_length": WholeRange(0, 1 << 22),
    "audio.projection_dim": WholeRange(0, 1 << 20),
    "audio.num_mel_bins": WholeRange(0, 1 << 16),
    "attention.kv_lora_rank": WholeRange(0, 1 << 20),
    "attention.q_lora_rank": WholeRange(0, 1 << 20),
    "expert_group_count": WholeRange(0, 1 << 14),
    "expert_group_used_count": WholeRange(0, 1 << 14),
    "expert_gating_func": WholeRange(0, 1 << 8),
    "ssm.conv_kernel": WholeRange(0, 1 << 16),
    "ssm.inner_size": WholeRange(0, 1 << 22),
    "ssm.state_size": WholeRange(0, 1 << 20),
    "ssm.time_step_rank": WholeRange(0, 1 << 20),
    "ssm.group_count": WholeRange(0, 1 << 20),
}
"""By what follows the architecture."""

REALS: Mapping[str, RealRange] = {
    "rope.freq_base": RealRange(0.0, 1e15, above=True),
    "rope.freq_base_swa": RealRange(0.0, 1e15, above=True),
    "rope.scaling.factor": RealRange(0.0, 1e6),
    "rope.scale_linear": RealRange(0.0, 1e6),
    "attention.layer_norm_epsilon": RealRange(0.0, 1.0),
    "attention.layer_norm_rms_epsilon": RealRange(0.0, 1.0),
    "attn_logit_softcapping": RealRange(0.0, 1e9),
    "final_logit_softcapping": RealRange(0.0, 1e9),
    "rope.scaling.attn_factor": RealRange(0.0, 1e9),
    "attention.scale": RealRange(-1e9, 1e9),
    "attention.clamp_kqv": RealRange(-1e9, 1e9),
    "attention.max_alibi_bias": RealRange(-1e9, 1e9),
    "attention.group_norm_epsilon": RealRange(0.0, 1.0),
    "vision.attention.layer_norm_epsilon": RealRange(0.0, 1.0),
    "audio.attention.layer_norm_epsilon": RealRange(0.0, 1.0),
    "logit_scale": RealRange(-1e9, 1e9),
    "residual_scale": RealRange(-1e9, 1e9),
    "embedding_scale": RealRange(-1e9, 1e9),
    "expert_weights_scale": RealRange(-1e9, 1e9),
}
"""The same, of numbers that need not be whole."""

FLAGS = frozenset({"attention.causal", "use_parallel_residual", "expert_weights_norm", "rope.scaling.finetuned"})
"""The same, of what is true or false. So is what is added to texts: `tokenizer.ggml.add_…`, `…_whitespaces`."""

WORDS: Mapping[str, frozenset[str]] = {"rope.scaling.type": frozenset({"none", "linear", "yarn", "longrope"})}
"""The same, of texts that are one of a few."""

WHOLE: Mapping[str, WholeRange] = {
    "general.file_type": WholeRange(0, (1 << 32) - 1),
    "general.quantization_version": WholeRange(0, (1 << 32) - 1),
    "split.no": WholeRange(0, (1 << 16) - 1),
    "split.count": WholeRange(0, (1 << 16) - 1),
    "split.tensors.count": WholeRange(0, (1 << 31) - 1),
    "tokenizer.ggml.token_type_count": WholeRange(0, 1 << 22),
}
"""By the whole key."""

_TOKEN_ID = WholeRange(-1, (1 << 32) - 1)
"""An id of no token means that there is none."""

TEXTS = ("general.name", "tokenizer.chat_template", "tokenizer.ggml.model", "tokenizer.ggml.pre")

NAMES = ("tokenizer.ggml.model", "tokenizer.ggml.pre")
MAX_NAME = 64
"""Characters of a text that names a kind. A longer one is none, and an engine's word about it is lost in its length."""

_OTHER_PARTS = frozenset({"adapter", "projector", "mmproj"})
_FLAG = re.compile(r"tokenizer\.ggml\.(?:add_[a-z_]+|[a-z_]+_whitespaces)")
_ID = re.compile(r"tokenizer\.ggml\.[a-z_]+_token_id")
_BLOCK = re.compile(r"blk\.([0-9]{1,9})\.")
_PADDED = 2
"""So many times the tokens that it names, at most, an embedding has rows."""


def check(architecture: str, metadata: Mapping[str, MetadataValue], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Unsound when something cannot be. `shapes`: of the tensors, by name, the length of a row first.

    A shard, which has only some of the tensors, is not compared with them: see `check_tensors`.
    """
    for key, value in metadata.items():
        _check_value(key, key.removeprefix(f"{architecture}."), value)
    if metadata.get("general.type") == "imatrix":
        raise Unsound("general.type is imatrix: an importance matrix, which helps to quantize a model and is none")
    facts = _Facts(architecture, metadata, shapes)
    facts.layers()
    facts.heads()
    if not facts.is_other_part:
        facts.tokens()
    if not facts.is_other_part and not facts.is_shard:
        facts.against_tensors()


def check_tensors(
    architecture: str, metadata: Mapping[str, MetadataValue], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Unsound when a header does not fit its tensors; `shapes`: of all, when several files hold them."""
    _Facts(architecture, metadata, shapes).against_tensors()


def _check_value(key: str, of_architecture: str, value: MetadataValue) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise Unsound(f"{key} is {value}, which is no number")
    if key in TEXTS and not isinstance(value, str):
        raise Unsound(f"{key} is {in_words(value)}, not a text")
    if key in NAMES and isinstance(value, str) and len(value) > MAX_NAME:
        raise Unsound(f"{key} is a text of {len(value)} characters, not the name of a kind")
    if (_FLAG.fullmatch(key) or (key != of_architecture and of_architecture in FLAGS)) and not isinstance(value, bool):
        raise Unsound(f"{key} is {in_words(value)}, not true or false")
    if (whole := _TOKEN_ID if _ID.fullmatch(key) else WHOLE.get(key)) is not None:
        _check_count(key, whole, value)
    if key == of_architecture:
        return
    if (words := WORDS.get(of_architecture)) is not None and value not in words:
        raise Unsound(f"{key} is {in_words(value)}, not one of {', '.join(sorted(words))}")
    items = value.values or () if isinstance(value, ArrayInfo) else value if isinstance(value, tuple) else None
    if items is not None and any(isinstance(item, float) and not math.isfinite(item) for item in items):
        raise Unsound(f"{key} holds what is no number")
    if (count := COUNTS.get(of_architecture)) is not None:
        if items is not None and not count.each:
            raise Unsound(f"{key} is a list, not a whole number")
        if numbers_of(value) is None and items is not None:
            raise Unsound(f"{key} is a list of what is no number")
        for item in (value,) if items is None else items:
            _check_count(key, count, item)
    if (real := REALS.get(of_architecture)) is not None:
        _check_real(key, real, value)


def _check_count(key: str, count: WholeRange, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise Unsound(f"{key} is {in_words(value)}, not a whole number")
    if not count.least <= value <= count.most:
        raise Unsound(f"{key} is {value}, not from {count.least} to {count.most}")


def _check_real(key: str, real: RealRange, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unsound(f"{key} is {in_words(value)}, not a number")
    if not real.least <= value <= real.most or (real.above and value == real.least):
        raise Unsound(f"{key} is {value}, not {'above' if real.above else 'from'} {real.least:g} to {real.most:g}")


class _Facts:
    """A header whose single values are sound: do they go together?"""

    def __init__(
        self, architecture: str, metadata: Mapping[str, MetadataValue], shapes: Mapping[str, tuple[int, ...]]
    ) -> None:
        self._architecture = architecture
        self._metadata = metadata
        self._shapes = shapes

    @property
    def is_other_part(self) -> bool:
        """It is no language model, but a part of one."""
        return self._architecture == "clip" or self._metadata.get("general.type") in _OTHER_PARTS

    @property
    def is_shard(self) -> bool:
        """It holds some of the tensors."""
        count = self._metadata.get("split.count")
        return isinstance(count, int) and count > 1

    def layers(self) -> None:
        """A list of one value a layer has one for each."""
        blocks = self._count("block_count")
        for name, count in COUNTS.items():
            key = f"{self._architecture}.{name}"
            length = numbers_of(self._metadata.get(key)) if count.each else None
            if length is None:
                continue
            if length > MAX_LAYERS or (blocks is not None and length < blocks):
                raise Unsound(f"{key} has {length} values for {MAX_LAYERS if blocks is None else blocks} layers")

    def heads(self) -> None:
        """What is rotated is a part of a head; what is used, of the experts there are."""
        hidden, heads = self._count("embedding_length"), self._count("attention.head_count")
        if hidden is not None and heads is not None and heads > hidden:
            raise Unsound(f"{self._key('attention.head_count')} is {heads}, for embeddings of {hidden}")
        key_heads = self._count("attention.head_count_kv")
        if key_heads is not None and heads is not None and (key_heads > heads or key_heads < min(heads, 1)):
            raise Unsound(f"{self._key('attention.head_count_kv')} is {key_heads}, of {heads} heads")
        rotary, head = self._count("rope.dimension_count"), self._count("attention.key_length")
        if head is None and hidden and heads:
            head = hidden // heads
        if rotary is not None and head is not None and rotary > head:
            raise Unsound(f"{self._key('rope.dimension_count')} is {rotary}, for heads of {head}")
        used, experts = self._count("expert_used_count"), self._count("expert_count")
        if used is not None and used > (experts or 0):
            raise Unsound(f"{self._key('expert_used_count')} is {used}, of {experts or 0} experts")

    def tokens(self) -> None:
        """The vocabulary, and what belongs to each token."""
        kind = self._metadata.get("tokenizer.ggml.model")
        if kind is None or kind in {"none", "no_vocab"}:
            return
        tokens = texts_of(self._metadata.get("tokenizer.ggml.tokens"))
        if not tokens:
            raise Unsound("tokenizer.ggml.tokens is missing, or no list of texts")
        if kind in {"gpt2", "gemma4"} and texts_of(self._metadata.get("tokenizer.ggml.merges")) is None:
            raise Unsound("tokenizer.ggml.merges is missing, or no list of texts: such a vocabulary needs them")
        for name, types in _PER_TOKEN.items():
            value = self._metadata.get(f"tokenizer.ggml.{name}")
            if value is None:
                continue
            count = numbers_of(value)
            if count is None or (isinstance(value, ArrayInfo) and value.type not in types):
                raise Unsound(f"tokenizer.ggml.{name} is no list of such numbers")
            if count < tokens:
                raise Unsound(f"tokenizer.ggml.{name} has {count} values for {tokens} tokens")

    def against_tensors(self) -> None:
        """The tensors tell how many layers there are, how wide they are, and how many tokens."""
        blocks = self._count("block_count")
        numbers = {int(match[1]) for match in map(_BLOCK.match, self._shapes) if match}
        if numbers and blocks is not None and blocks > max(numbers) + 1:
            raise Unsound(f"{self._key('block_count')} is {blocks}, and there are tensors of {max(numbers) + 1} layers")
        # Those that only guess further tokens are counted or not, by who wrote the file.
        if numbers and blocks is not None and blocks + (self._count("nextn_predict_layers") or 0) <= max(numbers):
            raise Unsound(f"{self._key('block_count')} is {blocks}, and there are tensors of layer {max(numbers)}")
        self._forward()
        embedding = self._shapes.get("token_embd.weight")
        if embedding is None or len(embedding) != 2:
            return
        width, rows = embedding
        hidden = self._count("embedding_length")
        if hidden is not None and hidden != width:
            raise Unsound(f"{self._key('embedding_length')} is {hidden}, and the embeddings are {width} wide")
        tokens = texts_of(self._metadata.get("tokenizer.ggml.tokens"))
        if tokens is not None and not tokens <= rows <= _PADDED * tokens:
            raise Unsound(f"tokenizer.ggml.tokens has {tokens} texts, and there are embeddings of {rows} tokens")

    def _forward(self) -> None:
        """The layers' first product is as wide as is said, or twice that where two are one tensor."""
        wide, up = self._count("feed_forward_length"), self._shapes.get("blk.0.ffn_up.weight")
        if wide is not None and up is not None and len(up) == 2 and up[1] not in {wide, 2 * wide}:
            raise Unsound(f"{self._key('feed_forward_length')} is {wide}, and there are tensors of {up[1]}")

    def _count(self, name: str) -> int | None:
        value = self._metadata.get(self._key(name))
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def _key(self, name: str) -> str:
        return f"{self._architecture}.{name}"


_PER_TOKEN: Mapping[str, frozenset[ValueType]] = {
    "scores": frozenset({ValueType.FLOAT32}),
    "token_type": frozenset({ValueType.INT32, ValueType.UINT32}),
}
"""What an engine reads beside the texts, without asking how long it is or of what type."""
