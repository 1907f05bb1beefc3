"""Header: what a GGUF file says about itself, read without trust.

Counts, lengths and offsets are claims of the file: each is checked against the file's size and against the bounds below
before anything is allocated for it. A truncated, damaged or hostile file ends in ModelFileError, in bounded time and
memory. Long arrays (the vocabulary) are walked, not kept, unless asked for. Tensor data is never read here.
"""

from __future__ import annotations

import math
import os
import re
import struct
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from puna.errors import ModelFileError
from puna.model.cursor import SHORT, STRETCH, U32, U64, Cursor, Malformed
from puna.model.ggml import FILE_TYPES, TensorType
from puna.model.markup import is_mark
from puna.model.metadata import ArrayInfo, MetadataValue, Scalar, ValueType
from puna.model.soundness import Unsound, check
from puna.plainfile import NotPlain, open_plain

MAGIC = b"GGUF"
DEFAULT_ALIGNMENT = 32

PROJECTOR_TENSORS = ("v.", "mm.", "a.")
"""How the names of a projector's tensors begin."""

MAX_PAIRS = 1 << 13
MAX_TENSORS = 1 << 16
MAX_KEY_BYTES = 1 << 16
MAX_TENSOR_NAME_BYTES = 1 << 8
MAX_DIMENSIONS = 4
MAX_ALIGNMENT = 1 << 20
MAX_ARCHITECTURE = 64
MAX_ELEMENTS = 1 << 22
"""Array elements walked in one header: sixteen times the largest vocabulary with its merges."""
MAX_TEXT_BYTES = 1 << 23
"""All text kept from one header together, names and keys among it; four times that when arrays are kept."""
MAX_VALUE_BYTES = 1 << 20
"""Of one text that is no element of an array: the longest are chat templates and licences."""
KEPT_NUMBERS = 1 << 10
"""Arrays of at most this many numbers are kept always: they hold settings of each layer."""
MAX_KEPT_NUMBERS = 1 << 14
"""Of all such arrays together; what is beyond is walked, not kept."""
_POOLED_AS_RANK = 4
_CONTROL = frozenset({2, 3})
_USER_DEFINED = 4
"""`tokenizer.ggml.token_type`: of tokens that are no text (unknown, control), and of those that may be."""
_KINDS = _CONTROL | {_USER_DEFINED}
_KIND = re.compile(b"[%b]" % bytes(sorted(_KINDS)))


_CODES: dict[ValueType, str] = {
    ValueType.UINT8: "B",
    ValueType.INT8: "b",
    ValueType.UINT16: "H",
    ValueType.INT16: "h",
    ValueType.UINT32: "I",
    ValueType.INT32: "i",
    ValueType.FLOAT32: "f",
    ValueType.BOOL: "?",
    ValueType.UINT64: "Q",
    ValueType.INT64: "q",
    ValueType.FLOAT64: "d",
}
"""struct's codes of the types that have a fixed size."""
_REALS = frozenset({ValueType.FLOAT32, ValueType.FLOAT64})
_PLACES = [struct.Struct(f"<{dimensions}QIQ") for dimensions in range(MAX_DIMENSIONS + 1)]
"""By the number of its dimensions: these of a tensor, its type, its offset."""
_TYPES = {type_.value: type_ for type_ in TensorType}


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where a tensor lies in its file, and what it is.

    `shape` as ggml has it: the row length first. `offset` from the file's start, `size` in bytes: both inside it.
    `part`: which of the model's files that is, where there are several (see `puna.model.shards`).
    """

    name: str
    shape: tuple[int, ...]
    type: TensorType
    offset: int
    size: int
    part: int = 0

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


class _Claim(NamedTuple):
    """A tensor whose offset is still counted from where the data begins."""

    name: str
    shape: tuple[int, ...]
    type: TensorType
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class SpecialToken:
    id: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """A checked header. A property is None when the file does not say, or says it in the wrong type.

    Text that is no UTF-8 has U+FFFD in its place. `special_tokens`: by role ('bos', 'eos', 'eot', 'padding' …).
    `control_tokens`: all that are no text, by their type or else their form (see `puna.model.markup.is_mark`). `size`:
    of the whole file in bytes.
    """

    version: int
    architecture: str
    metadata: Mapping[str, MetadataValue]
    tensors: tuple[TensorInfo, ...]
    special_tokens: Mapping[str, SpecialToken] = field(default_factory=dict)
    control_tokens: tuple[SpecialToken, ...] = ()
    alignment: int = DEFAULT_ALIGNMENT
    size: int = 0
    parameter_count: int = field(init=False)

    def __post_init__(self) -> None:
        # Once: lists ask for it under each of thousands of names.
        object.__setattr__(self, "parameter_count", sum(tensor.elements for tensor in self.tensors))

    @property
    def name(self) -> str | None:
        return self.text("general.name")

    @property
    def kind(self) -> str:
        """`general.type`: 'model', 'adapter', 'projector' … ('model' when absent)."""
        return self.text("general.type") or "model"

    @property
    def holds_projector(self) -> bool:
        """Whether a projector's tensors lie among the model's own, as older conversions of Ollama's have them."""
        mixed = self.kind == "model" and self.architecture != "clip"
        return mixed and any(tensor.name.startswith(PROJECTOR_TENSORS) for tensor in self.tensors)

    @property
    def quantization(self) -> str:
        """The file's type ('Q4_K_M'), or else the type that most of its bytes have; 'unknown' without tensors."""
        file_type = self.number("general.file_type")
        named = None if file_type is None else FILE_TYPES.get(file_type)
        if named is not None:
            return named
        sizes: Counter[str] = Counter()
        for tensor in self.tensors:
            sizes[tensor.type.name] += tensor.size
        return max(sizes, key=lambda name: sizes[name]) if sizes else "unknown"

    @property
    def context_length(self) -> int | None:
        return self.number(f"{self.architecture}.context_length")

    @property
    def embedding_length(self) -> int | None:
        return self.number(f"{self.architecture}.embedding_length")

    @property
    def block_count(self) -> int | None:
        return self.number(f"{self.architecture}.block_count")

    @property
    def head_count(self) -> int | None:
        """Where layers differ, the largest."""
        return self.largest(f"{self.architecture}.attention.head_count")

    @property
    def head_count_kv(self) -> int | None:
        """Where layers differ, the largest; as many as heads when the file does not say."""
        return self.largest(f"{self.architecture}.attention.head_count_kv") or self.head_count

    @property
    def pooling_type(self) -> int | None:
        return self.number(f"{self.architecture}.pooling_type")

    @property
    def ranks(self) -> bool:
        """Whether the model has a head that ranks a document for a query."""
        return self.pooling_type == _POOLED_AS_RANK

    @property
    def ranks_kinds(self) -> bool:
        """Whether that head was trained on pairs whose second text is of another kind of token, as BERT's are.

        Only BERT's own tokenizer makes two kinds; models with another may have a row for the second, and never use it.
        """
        kinds = next((tensor.shape[1:] for tensor in self.tensors if tensor.name == "token_types.weight"), ())
        return self.ranks and self.text("tokenizer.ggml.model") == "bert" and math.prod(kinds) > 1

    @property
    def chat_template(self) -> str | None:
        """The Jinja template."""
        return self.text("tokenizer.chat_template")

    @property
    def bos_token(self) -> str | None:
        token = self.special_tokens.get("bos")
        return token.text if token else None

    @property
    def eos_token(self) -> str | None:
        token = self.special_tokens.get("eos")
        return token.text if token else None

    @property
    def add_bos(self) -> bool | None:
        value = self.metadata.get("tokenizer.ggml.add_bos_token")
        return value if isinstance(value, bool) else None

    @property
    def vocabulary_size(self) -> int | None:
        match self.metadata.get("tokenizer.ggml.tokens"):
            case ArrayInfo(count=count):
                return count
            case tuple() as tokens:
                return len(tokens)
            case _:
                return self.number(f"{self.architecture}.vocab_size")

    @property
    def longest_token(self) -> int:
        """Bytes of the longest of the vocabulary's texts; 0 where there is none."""
        match self.metadata.get("tokenizer.ggml.tokens"):
            case ArrayInfo(longest=longest):
                return longest
            case tuple() as texts:
                return max((len(text.encode()) for text in texts if isinstance(text, str)), default=0)
            case _:
                return 0

    def text(self, key: str) -> str | None:
        value = self.metadata.get(key)
        return value if isinstance(value, str) else None

    def number(self, key: str) -> int | None:
        value = self.metadata.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def largest(self, key: str) -> int | None:
        """A number, or the largest of an array of numbers."""
        found = self.counts(key)
        return self.number(key) if found is None else max(found, default=None)

    def flags(self, key: str) -> tuple[bool, ...] | None:
        """An array of true and false; None where there is none, or it was too long to be kept."""
        value = self.metadata.get(key)
        values = value.values if isinstance(value, ArrayInfo) else value if isinstance(value, tuple) else None
        if values is None or not all(isinstance(item, bool) for item in values):
            return None
        return tuple(bool(item) for item in values)

    def counts(self, key: str) -> tuple[int, ...] | None:
        """The whole numbers of an array; None where there is none, or it was too long to be kept."""
        value = self.metadata.get(key)
        values = value.values if isinstance(value, ArrayInfo) else value if isinstance(value, tuple) else None
        if values is None:
            return None
        return tuple(item for item in values if isinstance(item, int) and not isinstance(item, bool))


def read_header(path: Path, *, arrays: bool = False, name: str = "") -> Header:
    """Read and check the header of `path`. `name`: what its user calls it, where that is not its file's name.

    `arrays`: keep array values as tuples instead of ArrayInfo. ModelFileError says what is wrong, OSError that the file
    cannot be opened. Takes no more time or memory than the bounds of this module allow, whatever the file holds.
    """
    try:
        with open_plain(path) as file:
            return _Parser(Cursor(file, os.fstat(file.fileno()).st_size), arrays).header()
    except NotPlain as error:
        raise ModelFileError(f"{name or path.name}: {error.strerror}") from error
    except Malformed as error:
        raise ModelFileError(f"{name or path.name}: {error}") from error


class _Parser:
    """One pass over a header, holding what is left of each bound."""

    def __init__(self, cursor: Cursor, arrays: bool) -> None:
        self._cursor = cursor
        self._arrays = arrays
        self._elements_left = MAX_ELEMENTS
        self._text_left = MAX_TEXT_BYTES * (4 if arrays else 1)
        self._numbers_left = MAX_KEPT_NUMBERS
        self._token_marks: list[int] = []
        self._kinds: dict[int, int] = {}

    def header(self) -> Header:
        version = self._version()
        tensor_count = self._count("tensors", MAX_TENSORS)
        pair_count = self._count("metadata", MAX_PAIRS)
        metadata = self._metadata(pair_count)
        architecture = metadata.get("general.architecture")
        if (not isinstance(architecture, str) or not architecture) and metadata.get("split.no"):
            architecture = ""  # of several files only the first says what the model is
        elif not isinstance(architecture, str) or not architecture:
            raise Malformed("names no architecture")
        if len(architecture) > MAX_ARCHITECTURE:
            raise Malformed(f"names an architecture of {len(architecture)} characters")
        alignment = _alignment(metadata.get("general.alignment", DEFAULT_ALIGNMENT))
        tensors = self._tensors(tensor_count, alignment)
        try:
            check(architecture, metadata, {tensor.name: tensor.shape for tensor in tensors})
        except Unsound as error:
            raise Malformed(str(error)) from error
        special, control = self._named_tokens(metadata)
        return Header(
            version=version,
            architecture=architecture,
            metadata=metadata,
            tensors=tensors,
            special_tokens=special,
            control_tokens=control,
            alignment=alignment,
            size=self._cursor.size,
        )

    def _version(self) -> int:
        if self._cursor.size < len(MAGIC) or self._cursor.take(len(MAGIC)) != MAGIC:
            raise Malformed("not a GGUF file")
        version = self._cursor.number(U32)
        if version in {2, 3}:
            return version
        if version & 0xFFFF == 0:
            raise Malformed("a big-endian GGUF file, which is not supported")
        raise Malformed(f"GGUF version {version} is not supported (2 and 3 are)")

    def _count(self, what: str, limit: int) -> int:
        count = self._cursor.number(U64)
        if count > limit:
            raise Malformed(f"{count} {what} entries are more than the {limit} allowed")
        return count

    # ------------------------------------------------------------------------------------------------- metadata

    def _metadata(self, count: int) -> dict[str, MetadataValue]:
        metadata: dict[str, MetadataValue] = {}
        for _ in range(count):
            key = self._label("metadata key", MAX_KEY_BYTES)
            if key in metadata:
                raise Malformed(f"has the metadata key {key!r} twice")
            metadata[key] = self._value(key, self._value_type())
        return metadata

    def _value_type(self) -> ValueType:
        number = self._cursor.number(U32)
        try:
            return ValueType(number)
        except ValueError as error:
            raise Malformed(f"metadata type {number} is unknown") from error

    def _value(self, key: str, type_: ValueType) -> MetadataValue:
        if type_ is ValueType.STRING:
            return self._text(key)
        if type_ is ValueType.ARRAY:
            return self._array(key)
        return self._number(type_)

    def _number(self, type_: ValueType) -> bool | int | float:
        data = self._cursor.take(struct.calcsize(f"<{_CODES[type_]}"))
        if type_ is ValueType.BOOL and data not in {b"\0", b"\1"}:
            raise Malformed("a boolean is neither 0 nor 1")
        value: bool | int | float = struct.unpack(f"<{_CODES[type_]}", data)[0]
        return _shortest(value, data) if type_ is ValueType.FLOAT32 else value

    def _array(self, key: str) -> ArrayInfo | tuple[Scalar, ...]:
        type_ = self._value_type()
        if type_ is ValueType.ARRAY:
            raise Malformed(f"{key!r} is an array of arrays, which is not supported")
        count = self._cursor.number(U64)
        if type_ is ValueType.STRING:
            return self._texts(key, count)
        return self._numbers(key, type_, count)

    def _numbers(self, key: str, type_: ValueType, count: int) -> ArrayInfo | tuple[Scalar, ...]:
        size = count * struct.calcsize(f"<{_CODES[type_]}")
        types = key == "tokenizer.ggml.token_type"
        if not self._arrays and not types and count > min(KEPT_NUMBERS, self._numbers_left):
            self._cursor.skip(size)
            return ArrayInfo(type_, count)
        self._spend(count)
        self._numbers_left -= min(count, self._numbers_left) if not types else 0
        data = self._cursor.take(size)
        if types:
            self._kinds = dict(_kinds(type_, data))
            if not self._arrays and count > KEPT_NUMBERS:
                return ArrayInfo(type_, count)
        values: tuple[bool | int | float, ...] = struct.unpack(f"<{count}{_CODES[type_]}", data)
        return values if self._arrays else ArrayInfo(type_, count, values)

    def _texts(self, key: str, count: int) -> ArrayInfo | tuple[str, ...]:
        self._spend(count)
        if self._arrays:
            texts, self._text_left = self._cursor.texts(count, self._text_left)
            return tuple(texts)
        if key != "tokenizer.ggml.tokens":
            self._cursor.walk_texts(count, SHORT)
            return ArrayInfo(ValueType.STRING, count)
        self._token_marks, longest = self._cursor.walk_texts(count)
        return ArrayInfo(ValueType.STRING, count, longest=longest)

    def _spend(self, elements: int) -> None:
        self._elements_left -= elements
        if self._elements_left < 0:
            raise Malformed(f"its arrays have more than {MAX_ELEMENTS} elements")

    def _text(self, key: str = "") -> str:
        (text,), left = self._cursor.texts(1, min(self._text_left, MAX_VALUE_BYTES), key)
        self._text_left -= min(self._text_left, MAX_VALUE_BYTES) - left
        return text

    def _label(self, what: str, limit: int) -> str:
        length = self._cursor.number(U64)
        if not 0 < length <= limit:
            raise Malformed(f"a {what} of {length} bytes (1 to {limit} are allowed)")
        self._text_left -= length
        if self._text_left < 0:
            raise Malformed("its names are larger than the bound on a header")
        try:
            return self._cursor.take(length).decode("utf-8")
        except UnicodeDecodeError as error:
            raise Malformed(f"a {what} is not text") from error

    # -------------------------------------------------------------------------------------------------- tensors

    def _tensors(self, count: int, alignment: int) -> tuple[TensorInfo, ...]:
        claims = [self._tensor() for _ in range(count)]
        if len({claim.name for claim in claims}) != len(claims):
            (twice, _), *_ = Counter(claim.name for claim in claims).most_common(1)
            raise Malformed(f"has the tensor {twice!r} twice")
        data = -(-self._cursor.position // alignment) * alignment
        return _placed(claims, data, alignment, self._cursor.size)

    def _tensor(self) -> _Claim:
        name = self._label("tensor name", MAX_TENSOR_NAME_BYTES)
        dimensions = self._cursor.number(U32)
        if dimensions > MAX_DIMENSIONS:
            raise Malformed(f"tensor {name!r} has {dimensions} dimensions ({MAX_DIMENSIONS} are allowed)")
        form = _PLACES[dimensions]
        *shape, number, offset = form.unpack(self._cursor.take(form.size))
        type_ = _TYPES.get(number)
        if type_ is None:
            raise Malformed(f"tensor {name!r} has the unknown type {number}")
        if 0 in shape or (shape[0] if shape else 1) % type_.block_size:
            raise Malformed(f"tensor {name!r} of type {type_.name} cannot have the shape {shape}")
        return _Claim(name, tuple(shape), type_, offset, type_.bytes_of(math.prod(shape)))

    # --------------------------------------------------------------------------------------------------- tokens

    def _named_tokens(
        self, metadata: Mapping[str, MetadataValue]
    ) -> tuple[dict[str, SpecialToken], tuple[SpecialToken, ...]]:
        """The special tokens by their roles, and the control tokens."""
        roles: dict[str, int] = {}
        for key, value in metadata.items():
            role = key.removeprefix("tokenizer.ggml.").removesuffix("_token_id")
            if len(key) - len(role) == len("tokenizer.ggml._token_id") and isinstance(value, int):
                roles[role] = value
        texts = self._token_texts(metadata.get("tokenizer.ggml.tokens"), {*roles.values(), *self._kinds})
        special = {role: SpecialToken(id_, texts[id_]) for role, id_ in roles.items() if id_ in texts}
        control = (
            SpecialToken(id_, texts[id_])
            for id_, kind in self._kinds.items()
            if id_ in texts and (kind in _CONTROL or is_mark(texts[id_]))
        )
        return special, tuple(control)

    def _token_texts(self, tokens: MetadataValue | None, ids: Set[int]) -> dict[int, str]:
        """Of those `ids` that there are, by id."""
        match tokens:
            case tuple():
                return {id_: str(tokens[id_]) for id_ in ids if 0 <= id_ < len(tokens)}
            case ArrayInfo(type=ValueType.STRING, count=count):
                return dict(self._texts_at(sorted(id_ for id_ in ids if 0 <= id_ < count)))
            case _:
                return {}

    def _texts_at(self, ids: Sequence[int]) -> Iterator[tuple[int, str]]:
        """`ids` in order: each stretch of texts is walked once."""
        for stretch, group in groupby(ids, key=lambda id_: id_ // STRETCH):
            members = list(group)
            self._cursor.seek(self._token_marks[stretch])
            places = [id_ - stretch * STRETCH for id_ in members]
            texts, self._text_left = self._cursor.texts_at(places, self._text_left)
            yield from zip(members, texts, strict=True)


def _kinds(type_: ValueType, data: bytes) -> Iterator[tuple[int, int]]:
    """Of `tokenizer.ggml.token_type`: the tokens that are no text, or may be none, and of which kind each is."""
    width = struct.calcsize(f"<{_CODES[type_]}")
    if type_ in _REALS:
        values = struct.unpack(f"<{len(data) // width}{_CODES[type_]}", data)
        yield from ((at, int(value)) for at, value in enumerate(values) if value in _KINDS)
        return
    # Numbers from 0 to 255 lie in the first of their bytes, and then in no other. Few tokens have one of these kinds.
    rest = bytes(width - 1)
    for match in _KIND.finditer(data[::width]):
        at = match.start()
        if data[at * width + 1 : (at + 1) * width] == rest:
            yield at, match[0][0]


def _alignment(value: MetadataValue) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise Malformed("general.alignment is not a number")
    if not 0 < value <= MAX_ALIGNMENT or value & (value - 1):
        raise Malformed(f"general.alignment {value} is not a power of two up to {MAX_ALIGNMENT}")
    if value % 8:
        raise Malformed(f"general.alignment {value} is not a multiple of 8, as the format asks for")
    return value


def _placed(claims: list[_Claim], data: int, alignment: int, size: int) -> tuple[TensorInfo, ...]:
    """The tensors at their offsets in the file. Malformed if one is not aligned, ends outside or lies over another."""
    end, before = 0, ""
    for claim in sorted(claims, key=lambda tensor: tensor.offset):
        if claim.offset % alignment:
            raise Malformed(f"tensor {claim.name!r} is not aligned to {alignment} bytes")
        if claim.offset < end:
            raise Malformed(f"tensor {claim.name!r} overlaps {before!r}")
        end, before = claim.offset + claim.size, claim.name
        if data + end > size:
            raise Malformed(f"truncated or damaged: tensor {claim.name!r} ends at byte {data + end} of {size}")
    return tuple(TensorInfo(claim.name, claim.shape, claim.type, data + claim.offset, claim.size) for claim in claims)


def _shortest(value: float, data: bytes) -> float:
    """The shortest decimal that is still this 32-bit float: 1e-05, not 9.999999747378752e-06."""
    if not math.isfinite(value):
        return value
    for digits in (6, 7, 8):
        candidate = float(f"{value:.{digits}g}")
        try:
            if struct.pack("<f", candidate) == data:
                return candidate
        except OverflowError:
            continue
    return value
