import os
import random
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import gguf
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes.gguf_files import CHATML, Tensor, gguf_bytes, write_gguf, write_tiny_llama
from puna.errors import ModelFileError
from puna.model.ggml import FILE_TYPES, TensorType
from puna.model.gguf import MAX_ELEMENTS, Header, SpecialToken, read_header
from puna.model.metadata import ArrayInfo, ValueType


def read(tmp_path: Path, data: bytes, *, arrays: bool = False) -> Header:
    path = tmp_path / "model.gguf"
    path.write_bytes(data)
    return read_header(path, arrays=arrays)


def refused(tmp_path: Path, data: bytes) -> str:
    with pytest.raises(ModelFileError, match=r"model\.gguf: ") as caught:
        read(tmp_path, data)
    return str(caught.value)


# --------------------------------------------------------------------------------------------------------- what it says


def test_a_model(tmp_path: Path) -> None:
    path = write_tiny_llama(tmp_path / "tiny.gguf")
    header = read_header(path)
    assert (header.version, header.architecture, header.name, header.kind) == (3, "llama", "Tiny", "model")
    assert (header.quantization, header.context_length, header.embedding_length) == ("F32", 512, 32)
    assert (header.block_count, header.head_count, header.head_count_kv) == (2, 4, 2)
    assert (header.vocabulary_size, header.chat_template) == (261, CHATML)
    assert (header.add_bos, header.bos_token, header.eos_token) == (False, "<|im_start|>", "<|im_end|>")
    assert header.special_tokens["unknown"] == SpecialToken(258, "<|endoftext|>")
    assert [token.text for token in header.control_tokens] == ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    assert header.metadata["tokenizer.ggml.tokens"] == ArrayInfo(ValueType.STRING, 261)
    assert header.size == path.stat().st_size
    assert header.parameter_count == sum(tensor.elements for tensor in header.tensors)


@pytest.mark.parametrize("arrays", [False, True])
@pytest.mark.parametrize("first", ["tokens", "token_type"])
def test_control_tokens_wherever_they_are(tmp_path: Path, arrays: bool, first: str) -> None:
    kinds = {0: 2, 1: 3, 1500: 3, 3071: 3, 3072: 3, 4998: 4, 4999: 4, 5001: 3}
    texts = [f"t{index}" for index in range(5000)]
    texts[4999] = "<｜User｜>"
    rows: dict[str, list[str] | list[int]] = {
        "tokens": texts,
        # One type too many: it is of no token.
        "token_type": [kinds.get(index, 1) for index in range(5002)],
    }
    names = sorted(rows, key=lambda name: name != first)
    metadata = {f"tokenizer.ggml.{name}": rows[name] for name in names}
    header = read(tmp_path, gguf_bytes(metadata=metadata), arrays=arrays)  # type: ignore[arg-type]
    assert header.control_tokens == tuple(SpecialToken(at, texts[at]) for at in (0, 1, 1500, 3071, 3072, 4999))
    assert header.special_tokens == {}


def test_agrees_with_the_reference_reader(tmp_path: Path) -> None:
    path = write_tiny_llama(
        tmp_path / "tiny.gguf", metadata={"general.alignment": 32, "x.list": [1.5, 2.5], "x.big": 2**40}
    )
    header = read_header(path, arrays=True)
    reference = gguf.GGUFReader(path)
    assert [(t.name, list(t.shape), t.offset, t.size) for t in header.tensors] == [
        (t.name, t.shape.tolist(), t.data_offset, t.n_bytes) for t in reference.tensors
    ]
    for key, value in header.metadata.items():
        expected = reference.fields[key].contents()
        assert list(value) == expected if isinstance(value, tuple) else value == pytest.approx(expected), key


def test_our_table_is_ggmls() -> None:
    # gguf-py says 40 for Q8_1, which no file holds; ggml's own block is two halves and 32 bytes.
    theirs = {t.value: gguf.GGML_QUANT_SIZES[t] for t in gguf.GGMLQuantizationType if t.name != "Q8_1"}
    ours = {t.value: (t.block_size, t.type_size) for t in TensorType if t.name != "Q8_1"}
    assert ours == theirs
    known = {t.value: t.name.removeprefix("ALL_").removeprefix("MOSTLY_") for t in gguf.LlamaFileType if t.value < 1024}
    assert known | {38: "MXFP4"} == FILE_TYPES


def test_every_scalar_type(tmp_path: Path) -> None:
    values = [
        *((0, "B", 200), (1, "b", -5), (2, "H", 60000), (3, "h", -6), (4, "I", 2**32 - 1), (5, "i", -7)),
        *((6, "f", 1e-5), (7, "?", True), (10, "Q", 2**64 - 1), (11, "q", -(2**63)), (12, "d", 0.1)),
    ]
    pairs = b"".join(
        struct.pack("<Q", 1) + chr(97 + index).encode() + struct.pack(f"<I{code}", number, value)
        for index, (number, code, value) in enumerate(values)
    )
    head = gguf_bytes()
    data = head[:16] + struct.pack("<Q", 1 + len(values)) + head[24:] + pairs
    metadata = read(tmp_path, data).metadata
    # A 32-bit float is given as its shortest decimal.
    assert [metadata[chr(97 + index)] for index in range(len(values))] == [value for _, _, value in values]


@pytest.mark.parametrize("value", [0.0, 1.0, 1e-5, 1e-6, 10000.0, 3.4028234663852886e38, 0.1, 1 / 3, -2.5e-45])
def test_floats_keep_their_bits(tmp_path: Path, value: float) -> None:
    got = read(tmp_path, gguf_bytes(metadata={"x": value})).metadata["x"]
    assert isinstance(got, float)
    assert struct.pack("<f", got) == struct.pack("<f", value)


def test_arrays(tmp_path: Path) -> None:
    data = gguf_bytes(metadata={"n": [1, 2], "t": ["a", "ü"], "long": list(range(2000)), "e": []})
    short = read(tmp_path, data).metadata
    assert short["n"] == ArrayInfo(ValueType.INT32, 2, (1, 2))
    assert short["t"] == ArrayInfo(ValueType.STRING, 2)
    assert short["long"] == ArrayInfo(ValueType.INT32, 2000)
    long = read(tmp_path, data, arrays=True).metadata
    assert (long["n"], long["t"], long["e"]) == ((1, 2), ("a", "ü"), ())
    assert long["long"] == tuple(range(2000))


def test_layers_may_differ(tmp_path: Path) -> None:
    header = read(
        tmp_path, gguf_bytes(metadata={"llama.attention.head_count": 8, "llama.attention.head_count_kv": [0, 2, 4]})
    )
    assert (header.head_count, header.head_count_kv) == (8, 4)


def test_wrong_kinds_count_as_absent(tmp_path: Path) -> None:
    """Of what nothing is computed from: all that is, is refused (test_soundness)."""
    header = read(tmp_path, gguf_bytes(metadata={"general.type": 5, "other.file_type": "x"}))
    assert (header.kind, header.number("other.file_type")) == ("model", None)
    assert (header.quantization, header.head_count, header.vocabulary_size) == ("unknown", None, None)


def test_quantization_without_a_name_is_what_most_bytes_are(tmp_path: Path) -> None:
    tensors = [Tensor("a", (64, 4), TensorType.Q8_0), Tensor("b", (16,), TensorType.F32)]
    assert read(tmp_path, gguf_bytes(tensors=tensors)).quantization == "Q8_0"


def test_token_text_far_into_the_vocabulary(tmp_path: Path) -> None:
    tokens = [f"t{index}" for index in range(5000)]
    ids = {
        "tokenizer.ggml.bos_token_id": 4999,
        "tokenizer.ggml.eot_token_id": 1024,
        "tokenizer.ggml.eos_token_id": 5000,
    }
    for arrays in (False, True):
        header = read(tmp_path, gguf_bytes(tokens=tokens, metadata=ids), arrays=arrays)
        assert header.special_tokens == {"bos": SpecialToken(4999, "t4999"), "eot": SpecialToken(1024, "t1024")}
        assert header.eos_token is None


def test_large_strings_cross_the_window(tmp_path: Path) -> None:
    tokens = ["a" * 700_000, "b" * 1_500_000, "c", "d" * 3_000_000, "e"]
    data = gguf_bytes(tokens=tokens, metadata={"after": "here", "tokenizer.ggml.eos_token_id": 4})
    header = read(tmp_path, data)
    assert (header.metadata["after"], header.eos_token) == ("here", "e")
    assert read(tmp_path, data, arrays=True).metadata["tokenizer.ggml.tokens"] == tuple(tokens)


def test_alignment_moves_tensors(tmp_path: Path) -> None:
    tensors = [Tensor("a", (3,)), Tensor("b", (5,))]
    header = read(tmp_path, gguf_bytes(tensors=tensors, alignment=4096))
    assert [tensor.offset % 4096 for tensor in header.tensors] == [0, 0]
    assert header.tensors[1].offset - header.tensors[0].offset == 4096


# ------------------------------------------------------------------------------------------------------ what it refuses

HEAD = gguf_bytes()
ARCH = HEAD[24:]


def head(*, version: int = 3, tensors: int = 0, pairs: int = 1, rest: bytes = ARCH) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, pairs) + rest


def pair(key: bytes, type_: int, value: bytes) -> bytes:
    return head(pairs=2, rest=ARCH + struct.pack("<Q", len(key)) + key + struct.pack("<I", type_) + value)


def tensor(name: bytes = b"t", shape: tuple[int, ...] = (4,), type_: int = 0, offset: int = 0) -> bytes:
    dims = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    info = struct.pack("<Q", len(name)) + name + dims + struct.pack("<IQ", type_, offset)
    return head(tensors=1, rest=ARCH + info + bytes(4096))


HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not a GGUF"),
    "other magic": (b"GGML" + HEAD[4:], "not a GGUF"),
    "version 1": (head(version=1), "version 1"),
    "big-endian": (b"GGUF" + struct.pack(">I", 3) + HEAD[8:], "big-endian"),
    "many tensors": (head(tensors=2**63), "tensors entries"),
    "many pairs": (head(pairs=2**64 - 1), "metadata entries"),
    "more pairs than there are": (head(pairs=2), "truncated"),
    "no architecture": (gguf_bytes(metadata={"general.architecture": 5}), "no architecture"),
    "empty architecture": (gguf_bytes(architecture=""), "no architecture"),
    "long key": (pair(b"", 4, b"")[:-4], "metadata key of 0"),
    "huge string": (pair(b"k", 8, struct.pack("<Q", 2**62)), "larger than the bound"),
    "string past the end": (pair(b"k", 8, struct.pack("<Q", 1000) + b"x"), "truncated"),
    "unknown type": (pair(b"k", 13, b"1234"), "type 13"),
    "boolean 2": (pair(b"k", 7, b"\x02"), "boolean"),
    "key is no text": (pair(b"\xff", 4, b"1234"), "not text"),
    "nested array": (pair(b"k", 9, struct.pack("<IQ", 9, 1)), "array of arrays"),
    "array of unknown type": (pair(b"k", 9, struct.pack("<IQ", 99, 1)), "type 99"),
    "huge number array": (pair(b"k", 9, struct.pack("<IQ", 4, 2**62)), "truncated"),
    "huge text array": (pair(b"k", 9, struct.pack("<IQ", 8, 2**62)), "elements"),
    "text array with a huge text": (pair(b"k", 9, struct.pack("<IQQ", 8, 1, 2**63)), "truncated"),
    "text array past the end": (pair(b"k", 9, struct.pack("<IQQ", 8, 1000, 0)), "truncated"),
    "key twice": (head(pairs=2, rest=ARCH + ARCH), "twice"),
    "alignment 0": (gguf_bytes(metadata={"general.alignment": 0}), "power of two"),
    "alignment 3": (gguf_bytes(metadata={"general.alignment": 3}), "power of two"),
    "alignment 4": (gguf_bytes(metadata={"general.alignment": 4}), "general.alignment 4 is not a multiple of 8"),
    "architecture of a book": (gguf_bytes(architecture="x" * 65), "names an architecture of 65 characters"),
    "alignment huge": (gguf_bytes(metadata={"general.alignment": 2**31}), "power of two"),
    "alignment text": (gguf_bytes(metadata={"general.alignment": "x"}), "not a number"),
    "tensor past the end": (tensor(shape=(10_000,)), "ends at byte"),
    "tensor of overflowing size": (tensor(shape=(2**62, 2**62, 2**62, 4)), "ends at byte"),
    "tensor without elements": (tensor(shape=(4, 0)), "cannot have the shape"),
    "tensor of part blocks": (tensor(shape=(33,), type_=8), "cannot have the shape"),
    "five dimensions": (tensor(shape=(1, 1, 1, 1, 1)), "dimensions"),
    "tensor type": (tensor(type_=4), "unknown type 4"),
    "tensor type of the future": (tensor(type_=2**31), "unknown type"),
    "offset not aligned": (tensor(offset=8), "not aligned"),
    "offset past the end": (tensor(offset=2**63), "ends at byte"),
    "nameless tensor": (tensor(name=b""), "tensor name"),
    "long tensor name": (tensor(name=b"x" * 300), "tensor name"),
    "tensor twice": (gguf_bytes(tensors=[Tensor("a", (8,)), Tensor("a", (8,))]), "twice"),
    "overlap": (gguf_bytes(tensors=[Tensor("a", (64,)), Tensor("b", (8,), offset=32)]), "overlaps"),
    "same place": (gguf_bytes(tensors=[Tensor("a", (8,)), Tensor("b", (8,), offset=0)]), "overlaps"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile(tmp_path: Path, case: str) -> None:
    data, reason = HOSTILE[case]
    assert reason in refused(tmp_path, data)


def test_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nope"):
        read_header(tmp_path / "nope")
    os.mkfifo(tmp_path / "pipe")
    descriptor = os.open(tmp_path / "pipe", os.O_RDWR)
    with pytest.raises(ModelFileError, match="regular"):
        read_header(tmp_path / "pipe")
    os.close(descriptor)


CLAIMS = {
    "numbers to keep": (True, struct.pack("<IQ", 6, 2**30), "elements"),
    "numbers to skip": (False, struct.pack("<IQ", 6, 2**30), "header is larger"),
    "texts": (True, struct.pack("<IQ", 8, MAX_ELEMENTS + 1), "elements"),
    "a text": (True, struct.pack("<IQQ", 8, 1, 2**32), "larger than the bound"),
    "a text to skip": (False, struct.pack("<IQQ", 8, 1, 2**32), "header is larger"),
}


@pytest.mark.parametrize("case", CLAIMS)
def test_claims_cost_no_memory(tmp_path: Path, case: str) -> None:
    """In a sparse file that is as large as it claims, so that every length lies inside."""
    arrays, array, reason = CLAIMS[case]
    path = tmp_path / "model.gguf"
    path.write_bytes(pair(b"k", 9, array))
    os.truncate(path, 2**40)
    tracemalloc.start()
    with pytest.raises(ModelFileError, match=reason):
        read_header(path, arrays=arrays)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000


# --------------------------------------------------------------------------------------------------------------- damage


def damaged_copies(data: bytes, count: int, within: int) -> list[bytes]:
    """Truncated and bit-flipped copies, the same each time; flips lie within the first bytes, where the header is."""
    source = random.Random(7)
    cuts = [data[: source.randrange(len(data))] for _ in range(count // 2)]
    flips = []
    for _ in range(count - len(cuts)):
        copy = bytearray(data)
        for _ in range(source.choice((1, 1, 2, 8))):
            copy[source.randrange(within)] ^= 1 << source.randrange(8)
        flips.append(bytes(copy))
    return cuts + flips


def header_bytes(path: Path) -> int:
    return min(tensor.offset for tensor in read_header(path).tensors)


def tiny(path: Path) -> Path:
    return write_tiny_llama(path)


def wide(path: Path) -> Path:
    """With a vocabulary as large as real ones are."""
    tokens = [f"<{index}>" for index in range(40_000)]
    merges = {"tokenizer.ggml.merges": [f"{index} {index + 1}" for index in range(20_000)]}
    return write_gguf(path, tokens=tokens, chat_template=CHATML, metadata=merges, tensors=[Tensor("a", (64, 8))])


@pytest.mark.parametrize(("write", "count"), [(tiny, 200), (wide, 40)])
def test_damaged_copies(tmp_path: Path, write: Callable[[Path], Path], count: int) -> None:
    """Cut anywhere: refused. Flipped anywhere in the header: refused, or another sound header; never anything else."""
    good = write(tmp_path / "good.gguf")
    data = good.read_bytes()
    for number, copy in enumerate(damaged_copies(data, count, header_bytes(good))):
        try:
            header = read(tmp_path, copy, arrays=bool(number % 2))
        except ModelFileError:
            continue
        assert len(copy) == len(data), "a truncated copy was taken for whole"
        assert all(0 <= tensor.offset <= tensor.offset + tensor.size <= len(copy) for tensor in header.tensors)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300), st.integers(0, 3), st.integers(0, 3))
def test_any_bytes(tmp_path: Path, rest: bytes, tensors: int, pairs: int) -> None:
    try:
        header = read(tmp_path, head(tensors=tensors, pairs=1 + pairs, rest=ARCH + rest))
    except ModelFileError:
        return
    assert header.architecture
