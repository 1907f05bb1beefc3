"""What a header cannot truly say is refused by its key when it is read, before anything is computed from it.

`PUNA_TEST_MUTATIONS` says how many changed headers are tried.
"""

from __future__ import annotations

import json
import os
import random
import tracemalloc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes.gguf_files import Tensor, Value, byte_tokens, gguf_bytes, write_tiny_llama
from puna.engine.cpu.supported import why_not
from puna.engine.memory import Costs, estimate, shape
from puna.engine.runner import LoadOptions
from puna.errors import ModelFileError
from puna.model import gguf
from puna.model.capabilities import capabilities
from puna.model.digest import Digest
from puna.model.gguf import Header, read_header
from puna.model.listed import Label, Listed
from puna.model.manifest import CONFIG_TYPE, MODEL_TYPE, Layer, Manifest
from puna.model.model import Model, config_of, media_type_of
from puna.model.name import Name
from puna.model.soundness import COUNTS, MAX_LAYERS, REALS
from puna.scheduler.facts import context_of
from puna.server.body import dump
from puna.server.ollama.listing import Here, card, tag

TRIALS = int(os.environ.get("PUNA_TEST_MUTATIONS", "300"))
MOST_BYTES = 64 << 20

NAN, INF = float("nan"), float("inf")
TOKENS = byte_tokens()

REFUSED: dict[str, tuple[Mapping[str, Value], str]] = {
    "layers": ({"llama.block_count": 1 << 28}, "llama.block_count is 268435456, not from 0 to 4096"),
    "more layers": ({"llama.block_count": 1 << 32}, "llama.block_count is 4294967296"),
    "layers that are not there": (
        {"llama.block_count": 3},
        "llama.block_count is 3, and there are tensors of 2 layers",
    ),
    "fewer layers than there are": (
        {"llama.block_count": 1},
        "llama.block_count is 1, and there are tensors of layer 1",
    ),
    "a name without end": (
        {"tokenizer.ggml.model": "x" * 65},
        "tokenizer.ggml.model is a text of 65 characters, not the name of a kind",
    ),
    "negative layers": ({"llama.block_count": -1}, "llama.block_count is -1"),
    "layers in words": ({"llama.block_count": "two"}, "llama.block_count is the text 'two', not a whole number"),
    "layers by halves": ({"llama.block_count": 2.5}, "llama.block_count is 2.5, not a whole number"),
    "layers that are true": ({"llama.block_count": True}, "llama.block_count is true, not a whole number"),
    "a list of layers": ({"llama.block_count": [2, 2]}, "llama.block_count is a list"),
    "no context": ({"llama.context_length": 0}, "llama.context_length is 0, not from 1"),
    "a huge context": ({"llama.context_length": 1 << 60}, "llama.context_length is 1152921504606846976"),
    "no width": ({"llama.embedding_length": 0}, "llama.embedding_length is 0"),
    "another width": ({"llama.embedding_length": 64}, "llama.embedding_length is 64, and the embeddings are 32 wide"),
    "heads": ({"llama.attention.head_count": 1 << 31}, "llama.attention.head_count is 2147483648"),
    "more heads than numbers": ({"llama.attention.head_count": 64}, "head_count is 64, for embeddings of 32"),
    "heads a layer": ({"llama.attention.head_count_kv": [2]}, "head_count_kv has 1 values for 2 layers"),
    "a bad head a layer": ({"llama.attention.head_count_kv": [2, 1 << 30]}, "head_count_kv is 1073741824"),
    "rotation": ({"llama.rope.dimension_count": 1 << 31}, "llama.rope.dimension_count is 2147483648"),
    "rotation beyond a head": ({"llama.rope.dimension_count": 16}, "rope.dimension_count is 16, for heads of 8"),
    "base": ({"llama.rope.freq_base": 0.0}, "llama.rope.freq_base is 0.0, not above 0"),
    "base in words": ({"llama.rope.freq_base": "x"}, "llama.rope.freq_base is the text 'x', not a number"),
    "a number that is none": ({"llama.attention.layer_norm_rms_epsilon": NAN}, "epsilon is nan, which is no number"),
    "an unknown one": ({"general.something": INF}, "general.something is inf, which is no number"),
    "one in a list": ({"llama.xielu.alpha": [1.0, NAN]}, "llama.xielu.alpha holds what is no number"),
    "experts": ({"llama.expert_used_count": 2}, "llama.expert_used_count is 2, of 0 experts"),
    "a template": ({"tokenizer.chat_template": 5}, "tokenizer.chat_template is 5, not a text"),
    "a name": ({"general.name": [1]}, "general.name is a list, not a text"),
    "a vocabulary of four": (
        {
            "tokenizer.ggml.tokens": ["a", "b", "c", "d"],
            "tokenizer.ggml.token_type": [1, 1, 1, 1],
            "tokenizer.ggml.merges": ["a b"],
        },
        "tokenizer.ggml.tokens has 4 texts, and there are embeddings of 261 tokens",
    ),
    "tokens without embeddings": ({"tokenizer.ggml.tokens": [*TOKENS, "x"]}, "has 261 values for 262 tokens"),
    "tokens that are numbers": ({"tokenizer.ggml.tokens": [1, 2]}, "tokenizer.ggml.tokens is missing, or no list"),
    "merges that are numbers": ({"tokenizer.ggml.merges": [1]}, "tokenizer.ggml.merges is missing, or no list"),
    "few types": ({"tokenizer.ggml.token_type": [1, 1]}, "tokenizer.ggml.token_type has 2 values for 261 tokens"),
    "types that are texts": ({"tokenizer.ggml.token_type": ["x"] * 261}, "tokenizer.ggml.token_type is no list"),
    "types of another size": ({"tokenizer.ggml.token_type": [2**40] * 261}, "tokenizer.ggml.token_type is no list"),
    "types in a text": ({"split.count": "two"}, "split.count is the text 'two', not a whole number"),
    "a kind of file": ({"general.file_type": 0.5}, "general.file_type is 0.5, not a whole number"),
    "an id": ({"tokenizer.ggml.eos_token_id": "</s>"}, "eos_token_id is the text '</s>', not a whole number"),
    "several ids": ({"tokenizer.ggml.fim_pre_token_id": [1]}, "fim_pre_token_id is a list, not a whole number"),
    "what is added": ({"tokenizer.ggml.add_bos_token": 1}, "add_bos_token is 1, not true or false"),
    "whitespaces": ({"tokenizer.ggml.remove_extra_whitespaces": [True]}, "is a list, not true or false"),
    "a flag": ({"llama.attention.causal": "yes"}, "llama.attention.causal is the text 'yes', not true or false"),
    "a scaling": ({"llama.rope.scaling.type": "su"}, "rope.scaling.type is the text 'su', not one of linear, longrope"),
    "scalings": ({"llama.rope.scaling.type": ["yarn"]}, "llama.rope.scaling.type is a list, not one of"),
    "texts for numbers": ({"llama.feed_forward_length": ["a", "b"]}, "length is a list of what is no number"),
    "a scale": ({"llama.attention.scale": "x"}, "llama.attention.scale is the text 'x', not a number"),
    "a state": ({"llama.ssm.conv_kernel": 1 << 31}, "llama.ssm.conv_kernel is 2147483648"),
    "no heads of keys": ({"llama.attention.head_count_kv": 0}, "llama.attention.head_count_kv is 0, of 4 heads"),
    "an importance matrix": ({"general.type": "imatrix"}, "an importance matrix, which helps"),
    "heads of keys": ({"llama.attention.head_count_kv": 8}, "llama.attention.head_count_kv is 8, of 4 heads"),
    "a projector's inner width": (
        {"llama.vision.feed_forward_length": (1 << 32) - 1},
        "llama.vision.feed_forward_length is 4294967295",
    ),
    "an image": ({"llama.vision.image_size": 1 << 16}, "llama.vision.image_size is 65536, not from 1 to 8192"),
    "inner width": ({"llama.feed_forward_length": 5}, "llama.feed_forward_length is 5, and there are tensors of 64"),
    "few scores": ({"tokenizer.ggml.scores": [0.5]}, "tokenizer.ggml.scores has 1 values for 261 tokens"),
    "scores that are whole": ({"tokenizer.ggml.scores": [1] * 261}, "tokenizer.ggml.scores is no list"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_by_its_key(tmp_path: Path, case: str) -> None:
    metadata, words = REFUSED[case]
    path = write_tiny_llama(tmp_path / "model.gguf", metadata=metadata)
    with pytest.raises(ModelFileError) as caught:
        read_header(path)
    assert words in str(caught.value)


def test_missing_merges(tmp_path: Path) -> None:
    metadata = {"tokenizer.ggml.model": "gpt2"}
    (tmp_path / "model.gguf").write_bytes(gguf_bytes(tokens=TOKENS, metadata=metadata))
    with pytest.raises(ModelFileError, match=r"tokenizer\.ggml\.merges is missing"):
        read_header(tmp_path / "model.gguf")


SOUND: dict[str, Mapping[str, Value]] = {
    "as it is": {},
    "most": {"llama.context_length": 1 << 27},
    "a head count a layer": {"llama.attention.head_count_kv": [2, 2], "llama.feed_forward_length": [64, 0]},
    "layers of other things": {"llama.vision.block_count": 27, "llama.nextn_predict_layers": 1},
    "no scaling": {"llama.rope.scaling.factor": 0.0},
    "whole numbers for real ones": {"llama.rope.freq_base": 10000},
    "numbers of others": {"other.block_count": 1 << 60, "general.file_type": 1 << 31},
    "no such token": {"tokenizer.ggml.padding_token_id": -1, "tokenizer.ggml.eos_token_id": (1 << 32) - 1},
    "half an inner width": {"llama.feed_forward_length": 32},
    "flags": {"llama.attention.causal": False, "tokenizer.ggml.add_bos_token": True, "other.attention.causal": 5},
    "a known scaling": {"llama.rope.scaling.type": "longrope"},
    "a token too many": {"tokenizer.ggml.token_type": [1] * 262},
}


@pytest.mark.parametrize("case", SOUND)
def test_what_can_be_is_taken(tmp_path: Path, case: str) -> None:
    for arrays in (False, True):
        read_header(write_tiny_llama(tmp_path / "model.gguf", metadata=SOUND[case]), arrays=arrays)


def test_parts_of_models_are_asked_less(tmp_path: Path) -> None:
    """An adapter has no vocabulary, a shard some tensors only."""
    for metadata in (
        {"general.type": "adapter", "tokenizer.ggml.model": "gpt2"},
        {"split.no": 0, "split.count": 2, "llama.block_count": 30, "llama.embedding_length": 64},
    ):
        data = gguf_bytes(metadata=metadata, tensors=[Tensor("token_embd.weight", (32, 8)), Tensor("blk.0.x", (4,))])
        (tmp_path / "part.gguf").write_bytes(data)
        assert read_header(tmp_path / "part.gguf").tensors


# ------------------------------------------------------------------------------------------------------------ mutation


def model_of(header: Header, path: Path) -> Model:
    digest = Digest.of(b"")
    return Model(
        name=Name.parse("m"),
        digest=digest.hex,
        manifest=Manifest(Layer(CONFIG_TYPE, digest, 0), (Layer(media_type_of(header), digest, header.size),)),
        config=config_of(header),
        header=header,
        weights=path,
        weights_digest=digest,
        capabilities=capabilities(header),
        modified=datetime.now(timezone.utc),
    )


def use(path: Path) -> None:
    """All that a server computes from a header before it loads the model."""
    header = read_header(path)
    model = model_of(header, path)
    assert model.manifest.of_type(MODEL_TYPE) or media_type_of(header) != MODEL_TYPE
    types = frozenset(tensor.type.name for tensor in header.tensors)
    why_not(header.architecture, types, header.metadata)
    lengths = [header.number(f"{header.architecture}.attention.{part}_length") for part in ("key", "value")]
    layout = shape(
        weights=sum(tensor.size for tensor in header.tensors),
        vocabulary=header.vocabulary_size or 0,
        embedding=header.embedding_length or 0,
        blocks=header.block_count or 0,
        heads=header.head_count or 0,
        kv_heads=header.head_count_kv,
        key=lengths[0],
        value=lengths[1],
    )
    assert 0 <= layout.numbers <= MAX_LAYERS << 31
    context = context_of(None, 0, header.context_length)
    assert context > 0
    assert (
        estimate(
            layout, LoadOptions(num_ctx=context, slots=1), Costs(base=1, weights=1.3, token=256, batch=256, value=None)
        ).total
        > 0
    )
    whole = read_header(path, arrays=True)
    for shown in (header, whole):
        answer = card(model, Here("cpu", "", context, None), header=shown)
        json.loads(dump(answer), parse_constant=lambda word: pytest.fail(f"{word} in an answer"))
    dump(tag(Listed(model.name, model.modified, Label.of(model))))


HOSTILE: Sequence[Value] = (
    *(0, 1, 2, 3, -1, 255, 1 << 16, 1 << 28, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 60, (1 << 64) - 1),
    *(NAN, INF, -INF, 0.0, -1.0, 1e38, 0.5, "", "x", "llama", True, False, "\ufffd" * 50),
    *([], [0], [1 << 31], [-1] * 3, [NAN], [""], ["x"] * 4, [True], list(range(2000)), [1 << 60] * 2),
)


def keys() -> Iterator[str]:
    yield from (f"llama.{name}" for name in (*COUNTS, *REALS))
    yield from (f"tokenizer.ggml.{name}" for name in ("tokens", "merges", "scores", "token_type", "model", "pre"))
    yield from (f"tokenizer.ggml.{name}_token_id" for name in ("bos", "eos", "eot", "padding", "fim_pre"))
    yield from ("general.architecture", "general.alignment", "general.type", "general.name", "general.file_type")
    yield from ("tokenizer.chat_template", "tokenizer.ggml.add_bos_token", "split.count", "split.no")


KEYS = tuple(keys())


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Header:
    return read_header(write_tiny_llama(tmp_path_factory.mktemp("base") / "model.gguf"), arrays=True)


def changed(base: Header, metadata: Mapping[str, Value]) -> bytes:
    """The same model without its numbers, and with `metadata`."""
    tensors = [Tensor(tensor.name, tensor.shape, tensor.type) for tensor in base.tensors]
    return gguf_bytes(metadata={**base.metadata, **metadata}, tensors=tensors)  # type: ignore[dict-item]


def mutant(base: Header, source: random.Random) -> bytes:
    metadata = {source.choice(KEYS): source.choice(HOSTILE) for _ in range(source.choice([1, 1, 2, 4]))}
    data = bytearray(changed(base, metadata))
    if source.random() < 0.5:
        for _ in range(source.choice([1, 1, 3, 20])):
            data[source.randrange(9000)] = source.choice([0, 1, 127, 255, source.randrange(256)])
        del data[source.choice([len(data)] * 6 + [source.randrange(len(data))]) :]
    return bytes(data)


@pytest.mark.timeout(1800)
def test_changed_headers_end_in_words_and_take_no_memory(tmp_path: Path, base: Header) -> None:
    """Each is refused with a ModelFileError, or is used as a server would, within 64 MB."""
    path, refused, worst = tmp_path / "model.gguf", 0, 0
    for trial in range(TRIALS):
        path.write_bytes(mutant(base, random.Random(trial)))
        tracemalloc.start()
        try:
            use(path)
        except ModelFileError:
            refused += 1
        worst = max(worst, tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert worst < MOST_BYTES
    assert TRIALS // 4 < refused < TRIALS


words = st.text("ab\u00e9\U0001f600 {}%", max_size=10)
scalars = st.one_of(
    st.integers(-(1 << 63), (1 << 64) - 1), st.floats(width=32), st.booleans(), words,
    st.lists(st.integers(-(1 << 31), (1 << 31) - 1), max_size=5), st.lists(words, max_size=5),
)  # fmt: skip


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(KEYS), scalars, max_size=4))
def test_any_values(tmp_path: Path, base: Header, metadata: dict[str, Value]) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(changed(base, metadata))
    with suppress(ModelFileError):
        use(path)


def test_what_is_kept_of_a_header_is_small(tmp_path: Path) -> None:
    """Of one with as much of everything as it may have, far less is kept than is read."""
    metadata: dict[str, Value] = {f"llama.x{number}": [number] * 1000 for number in range(500)}
    path = write_tiny_llama(tmp_path / "model.gguf", metadata=metadata | {"x.texts": ["word " * 20] * 20_000})
    tracemalloc.start()
    header = read_header(path)
    # What threads of other tests take meanwhile is theirs.
    ours = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, f"{Path(gguf.__file__).parent}/*")])
    tracemalloc.stop()
    kept = sum(trace.size for trace in ours.traces)
    assert path.stat().st_size > 4_000_000
    assert 0 < kept < 1_500_000
    assert header.architecture == "llama"


def test_a_long_text_is_refused_by_its_key(tmp_path: Path) -> None:
    path = write_tiny_llama(tmp_path / "model.gguf", chat_template="x" * (1 << 20) + "y")
    with pytest.raises(ModelFileError, match=r"the text of tokenizer\.chat_template: 1048577 bytes"):
        read_header(path)
