"""Header: what a GGUF file says about itself, read without trust.

Counts, lengths and offsets are claims of the file: each is checked against the file's size and against the bounds below
before anything is allocated for it. A truncated, damaged or hostile file ends in ModelFileError, in bounded time and
memory. Long arrays (the vocabulary) are walked, not kept, unless asked for. Tensor data is never read here.
"""

from __future__ import annotations

import math
import os
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import FileIO
from itertools import groupby
from pathlib import Path

from puna.errors import ModelFileError
from puna.model.ggml import FILE_TYPES, TensorType
from puna.model.markup import is_mark
from puna.model.metadata import ArrayInfo, MetadataValue, Scalar, ValueType
from puna.model.soundness import Unsound, check
from puna.plainfile import NotPlain, open_plain

MAGIC = b"GGUF"
DEFAULT_ALIGNMENT = 32

PROJECTOR_TENSORS = ("v.", "mm.", "a.")
"""How the names of a projector's tensors begin."""

MAX_HEADER_BYTES = 1 << 27
MAX_PAIRS = 1 << 13
MAX_TENSORS = 1 << 16
MAX_KEY_BYTES = 1 << 16
MAX_TENSOR_NAME_BYTES = 1 << 8
MAX_DIMENSIONS = 4
MAX_ALIGNMENT = 1 << 20
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
_CHUNK = 1 << 20
_MARK_EVERY = 1 << 10
_CONTROL = frozenset({2, 3})
_USER_DEFINED = 4
_POOLED_AS_RANK = 4
"""`tokenizer.ggml.token_type`: of tokens that are no text (unknown, control), and of those that may be."""


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
    def parameter_count(self) -> int:
        return sum(tensor.elements for tensor in self.tensors)

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

    def longest_text(self, key: str) -> int:
        """Bytes of the longest of an array of texts; 0 where there is none."""
        match self.metadata.get(key):
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
            return _Parser(_Cursor(file, os.fstat(file.fileno()).st_size), arrays).header()
    except NotPlain as error:
        raise ModelFileError(f"{name or path.name}: {error.strerror}") from error
    except _Damaged as error:
        raise ModelFileError(f"{name or path.name}: {error}") from error


class _Damaged(Exception):
    """What is wrong, in words; becomes a ModelFileError at the border."""


class _Cursor:
    """Reads forward through a window of the file. Nothing is taken or skipped beyond the file's end."""

    def __init__(self, file: FileIO, size: int) -> None:
        self.size = size
        self._file = file
        self._start = 0
        self._buffer = b""
        self._at = 0

    @property
    def position(self) -> int:
        return self._start + self._at

    def take(self, count: int) -> bytes:
        self._need(count)
        data = self._buffer[self._at : self._at + count]
        self._at += count
        return data

    def number(self, form: struct.Struct) -> int:
        self._need(form.size)
        (value,) = form.unpack_from(self._buffer, self._at)
        self._at += form.size
        assert isinstance(value, int)
        return value

    def skip(self, count: int) -> None:
        self._check(count)
        if self._at + count <= len(self._buffer):
            self._at += count
        else:
            self.seek(self.position + count)

    def seek(self, position: int) -> None:
        self._start, self._buffer, self._at = position, b"", 0
        self._file.seek(position)

    def skip_texts(self, count: int) -> tuple[list[int], int]:
        """Walk over strings. Gives where each _MARK_EVERY-th begins, and the bytes of the longest."""
        marks: list[int] = []
        longest = 0
        unpack = _U64.unpack_from
        buffer, at = self._buffer, self._at
        end = len(buffer)
        for index in range(count):
            if not index % _MARK_EVERY:
                marks.append(self._start + at)
            if at + 8 > end:
                self._at = at
                self._need(8)
                buffer, at, end = self._buffer, self._at, len(self._buffer)
            length = unpack(buffer, at)[0]
            longest = max(longest, length)
            at += 8 + length
            if at > end:
                self._skip_past(at)
                buffer, at, end = self._buffer, self._at, len(self._buffer)
        self._at = at
        return marks, longest

    def texts(self, count: int, budget: int, key: str = "") -> tuple[list[str], int]:
        """Read strings of at most `budget` bytes together; gives what is left of it. `key`: whose they are."""
        texts: list[str] = []
        keep = texts.append
        unpack = _U64.unpack_from
        for _ in range(count):
            at = self._at
            if at + 8 > len(self._buffer):
                self._need(8)
                at = self._at
            length = unpack(self._buffer, at)[0]
            budget -= length
            if budget < 0:
                what = f"the text of {key}" if key else "its texts"
                raise _Damaged(f"{what}: {length} bytes are larger than the bound on a header")
            at += 8
            self._at = at
            if at + length > len(self._buffer):
                self._need(length)
                at = self._at
            self._at = at + length
            keep(str(self._buffer[at : self._at], "utf-8", "replace"))
        return texts, budget

    def _skip_past(self, at: int) -> None:
        """Go to index `at` of the buffer, which lies beyond it."""
        behind = len(self._buffer)
        self._at, ahead = behind, at - behind
        self.skip(ahead)

    def _check(self, count: int) -> None:
        if self.position + count > self.size:
            raise _Damaged(f"truncated or damaged: {count} more bytes are named at byte {self.position} of {self.size}")
        if self.position + count > MAX_HEADER_BYTES:
            raise _Damaged(f"its header is larger than {MAX_HEADER_BYTES} bytes")

    def _need(self, count: int) -> None:
        if self._at + count <= len(self._buffer):
            return
        self._check(count)
        kept = self._buffer[self._at :]
        parts, have = [kept], len(kept)
        while have < count:
            part = self._file.read(max(_CHUNK, count - have))
            if not part:
                raise _Damaged("the file became shorter while it was read")
            parts.append(part)
            have += len(part)
        self._start, self._buffer, self._at = self.position, b"".join(parts), 0


_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")


class _Parser:
    """One pass over a header, holding what is left of each bound."""

    def __init__(self, cursor: _Cursor, arrays: bool) -> None:
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
            raise _Damaged("names no architecture")
        alignment = _alignment(metadata.get("general.alignment", DEFAULT_ALIGNMENT))
        tensors = self._tensors(tensor_count, alignment)
        try:
            check(architecture, metadata, {tensor.name: tensor.shape for tensor in tensors})
        except Unsound as error:
            raise _Damaged(str(error)) from error
        return Header(
            version=version,
            architecture=architecture,
            metadata=metadata,
            tensors=tensors,
            special_tokens=self._special_tokens(metadata),
            control_tokens=self._control_tokens(metadata),
            alignment=alignment,
            size=self._cursor.size,
        )

    def _version(self) -> int:
        if self._cursor.size < len(MAGIC) or self._cursor.take(len(MAGIC)) != MAGIC:
            raise _Damaged("not a GGUF file")
        version = self._cursor.number(_U32)
        if version in {2, 3}:
            return version
        if version & 0xFFFF == 0:
            raise _Damaged("a big-endian GGUF file, which is not supported")
        raise _Damaged(f"GGUF version {version} is not supported (2 and 3 are)")

    def _count(self, what: str, limit: int) -> int:
        count = self._cursor.number(_U64)
        if count > limit:
            raise _Damaged(f"{count} {what} entries are more than the {limit} allowed")
        return count

    # ------------------------------------------------------------------------------------------------- metadata

    def _metadata(self, count: int) -> dict[str, MetadataValue]:
        metadata: dict[str, MetadataValue] = {}
        for _ in range(count):
            key = self._label("metadata key", MAX_KEY_BYTES)
            if key in metadata:
                raise _Damaged(f"has the metadata key {key!r} twice")
            metadata[key] = self._value(key, self._value_type())
        return metadata

    def _value_type(self) -> ValueType:
        number = self._cursor.number(_U32)
        try:
            return ValueType(number)
        except ValueError as error:
            raise _Damaged(f"metadata type {number} is unknown") from error

    def _value(self, key: str, type_: ValueType) -> MetadataValue:
        if type_ is ValueType.STRING:
            return self._text(key)
        if type_ is ValueType.ARRAY:
            return self._array(key)
        return self._number(type_)

    def _number(self, type_: ValueType) -> bool | int | float:
        data = self._cursor.take(struct.calcsize(f"<{_CODES[type_]}"))
        if type_ is ValueType.BOOL and data not in {b"\0", b"\1"}:
            raise _Damaged("a boolean is neither 0 nor 1")
        value: bool | int | float = struct.unpack(f"<{_CODES[type_]}", data)[0]
        return _shortest(value, data) if type_ is ValueType.FLOAT32 else value

    def _array(self, key: str) -> ArrayInfo | tuple[Scalar, ...]:
        type_ = self._value_type()
        if type_ is ValueType.ARRAY:
            raise _Damaged(f"{key!r} is an array of arrays, which is not supported")
        count = self._cursor.number(_U64)
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
        values: tuple[bool | int | float, ...] = struct.unpack(f"<{count}{_CODES[type_]}", self._cursor.take(size))
        if types:
            self._kinds = {at: int(kind) for at, kind in enumerate(values) if kind in _CONTROL or kind == _USER_DEFINED}
            if not self._arrays and count > KEPT_NUMBERS:
                return ArrayInfo(type_, count)
        return values if self._arrays else ArrayInfo(type_, count, values)

    def _texts(self, key: str, count: int) -> ArrayInfo | tuple[str, ...]:
        self._spend(count)
        if self._arrays:
            texts, self._text_left = self._cursor.texts(count, self._text_left)
            return tuple(texts)
        marks, longest = self._cursor.skip_texts(count)
        if key == "tokenizer.ggml.tokens":
            self._token_marks = marks
        return ArrayInfo(ValueType.STRING, count, longest=longest)

    def _spend(self, elements: int) -> None:
        self._elements_left -= elements
        if self._elements_left < 0:
            raise _Damaged(f"its arrays have more than {MAX_ELEMENTS} elements")

    def _text(self, key: str = "") -> str:
        (text,), left = self._cursor.texts(1, min(self._text_left, MAX_VALUE_BYTES), key)
        self._text_left -= min(self._text_left, MAX_VALUE_BYTES) - left
        return text

    def _label(self, what: str, limit: int) -> str:
        length = self._cursor.number(_U64)
        if not 0 < length <= limit:
            raise _Damaged(f"a {what} of {length} bytes (1 to {limit} are allowed)")
        self._text_left -= length
        if self._text_left < 0:
            raise _Damaged("its names are larger than the bound on a header")
        try:
            return self._cursor.take(length).decode("utf-8")
        except UnicodeDecodeError as error:
            raise _Damaged(f"a {what} is not text") from error

    # -------------------------------------------------------------------------------------------------- tensors

    def _tensors(self, count: int, alignment: int) -> tuple[TensorInfo, ...]:
        claims = [self._tensor() for _ in range(count)]
        if len({claim.name for claim in claims}) != len(claims):
            (twice, _), *_ = Counter(claim.name for claim in claims).most_common(1)
            raise _Damaged(f"has the tensor {twice!r} twice")
        data = -(-self._cursor.position // alignment) * alignment
        return _placed(claims, data, alignment, self._cursor.size)

    def _tensor(self) -> TensorInfo:
        """A claim: its offset is still counted from where the data begins."""
        name = self._label("tensor name", MAX_TENSOR_NAME_BYTES)
        dimensions = self._cursor.number(_U32)
        if dimensions > MAX_DIMENSIONS:
            raise _Damaged(f"tensor {name!r} has {dimensions} dimensions ({MAX_DIMENSIONS} are allowed)")
        shape = tuple(self._cursor.number(_U64) for _ in range(dimensions))
        number = self._cursor.number(_U32)
        try:
            type_ = TensorType(number)
        except ValueError as error:
            raise _Damaged(f"tensor {name!r} has the unknown type {number}") from error
        if 0 in shape or (shape[0] if shape else 1) % type_.block_size:
            raise _Damaged(f"tensor {name!r} of type {type_.name} cannot have the shape {list(shape)}")
        return TensorInfo(name, shape, type_, self._cursor.number(_U64), type_.bytes_of(math.prod(shape)))

    # --------------------------------------------------------------------------------------------------- tokens

    def _special_tokens(self, metadata: Mapping[str, MetadataValue]) -> dict[str, SpecialToken]:
        tokens = metadata.get("tokenizer.ggml.tokens")
        special: dict[str, SpecialToken] = {}
        for key, value in metadata.items():
            role = key.removeprefix("tokenizer.ggml.").removesuffix("_token_id")
            if len(key) - len(role) != len("tokenizer.ggml._token_id") or not isinstance(value, int):
                continue
            text = self._token_text(tokens, value)
            if text is not None:
                special[role] = SpecialToken(value, text)
        return special

    def _control_tokens(self, metadata: Mapping[str, MetadataValue]) -> tuple[SpecialToken, ...]:
        tokens = metadata.get("tokenizer.ggml.tokens")
        match tokens:
            case tuple():
                found = [SpecialToken(index, str(tokens[index])) for index in self._kinds if index < len(tokens)]
            case ArrayInfo(type=ValueType.STRING, count=count):
                found = self._tokens_at([index for index in self._kinds if index < count])
            case _:
                found = []
        return tuple(token for token in found if self._kinds[token.id] in _CONTROL or is_mark(token.text))

    def _tokens_at(self, indexes: Sequence[int]) -> list[SpecialToken]:
        """The texts at `indexes`, which are in order: each stretch of _MARK_EVERY texts is read once."""
        found: list[SpecialToken] = []
        for stretch, group in groupby(indexes, key=lambda index: index // _MARK_EVERY):
            members = list(group)
            self._cursor.seek(self._token_marks[stretch])
            begin = stretch * _MARK_EVERY
            texts, self._text_left = self._cursor.texts(members[-1] + 1 - begin, self._text_left)
            found += [SpecialToken(index, texts[index - begin]) for index in members]
        return found

    def _token_text(self, tokens: MetadataValue | None, index: int) -> str | None:
        match tokens:
            case tuple() if 0 <= index < len(tokens):
                return str(tokens[index])
            case ArrayInfo(type=ValueType.STRING, count=count) if 0 <= index < count:
                self._cursor.seek(self._token_marks[index // _MARK_EVERY])
                self._cursor.skip_texts(index % _MARK_EVERY)
                return self._text()
            case _:
                return None


def _alignment(value: MetadataValue) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _Damaged("general.alignment is not a number")
    if not 0 < value <= MAX_ALIGNMENT or value & (value - 1):
        raise _Damaged(f"general.alignment {value} is not a power of two up to {MAX_ALIGNMENT}")
    return value


def _placed(claims: list[TensorInfo], data: int, alignment: int, size: int) -> tuple[TensorInfo, ...]:
    """The tensors at their offsets in the file. _Damaged if one is not aligned, ends outside or lies over another."""
    end, before = 0, ""
    for claim in sorted(claims, key=lambda tensor: tensor.offset):
        if claim.offset % alignment:
            raise _Damaged(f"tensor {claim.name!r} is not aligned to {alignment} bytes")
        if claim.offset < end:
            raise _Damaged(f"tensor {claim.name!r} overlaps {before!r}")
        end, before = claim.offset + claim.size, claim.name
        if data + end > size:
            raise _Damaged(f"truncated or damaged: tensor {claim.name!r} ends at byte {data + end} of {size}")
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
