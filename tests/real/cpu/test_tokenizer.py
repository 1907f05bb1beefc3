"""Token ids and pieces equal llama.cpp's, for every pre-tokenizer and for SentencePiece, on 10,000 texts together."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakes.gguf_files import Tensor, Value, write_gguf
from puna.engine.cpu.tokenizer import Tokenizer
from puna.engine.cpu.words import WORD_RULES, WordRule
from puna.engine.endings import CANDIDATES, ROLE_TEXTS
from puna.engine.llama.engine import LlamaEngine
from puna.engine.runner import LoadOptions
from puna.errors import ModelFileError
from puna.model.gguf import Header, read_header
from puna.settings import Settings
from real.cpu.models import llama_cpp
from real.cpu.running import files
from real.cpu.texts import texts

_RULES: dict[WordRule, str] = {rule: name for name, rule in WORD_RULES.items()}
"""One name for each rule."""


def assert_equal(model: Path, count: int, seed: int = 0) -> Tokenizer:
    """`model` needs only its vocabulary to be real."""
    tokenizer = Tokenizer(read_header(model, arrays=True))
    specials = [tokenizer.piece(token).decode() for token in range(tokenizer.vocabulary) if tokenizer.is_control(token)]
    given = texts(count, [text for text in specials if text][:20], seed)
    theirs = llama_cpp({"model": str(model), "texts": given})
    for name, special in (("plain", False), ("special", True)):
        expected = theirs[name]
        assert isinstance(expected, list)
        for text, ids in zip(given, expected, strict=True):
            assert tokenizer.encode(text, special=special, bos=special) == ids, repr(text)
    assert [tokenizer.piece(token).hex() for token in range(tokenizer.vocabulary)] == theirs["pieces"]
    assert list(tokenizer.eos) == theirs["ends"]
    return tokenizer


def with_vocabulary(path: Path, metadata: dict[str, Value]) -> Path:
    """A model that llama.cpp loads, as small as can be, with this vocabulary."""
    tokens = metadata.pop("tokenizer.ggml.tokens")
    assert isinstance(tokens, list)
    shapes = {"token_embd": (8, len(tokens)), "output_norm": (8,), "blk.0.attn_norm": (8,), "blk.0.ffn_norm": (8,)}
    parts = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    shapes |= {f"blk.0.{part}": (8, 8) for part in parts}
    facts: dict[str, Value] = {
        "llama.block_count": 1,
        "llama.context_length": 64,
        "llama.embedding_length": 8,
        "llama.feed_forward_length": 8,
        "llama.attention.head_count": 1,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
    }
    tensors = [Tensor(f"{name}.weight", shape) for name, shape in shapes.items()]
    return write_gguf(path, metadata=facts | metadata, tokens=tokens, tensors=tensors)


def vocabulary(header: Header) -> dict[str, Value]:
    kept = {key: value for key, value in header.metadata.items() if key.startswith("tokenizer.ggml.")}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in kept.items()}  # type: ignore[misc]


def test_the_shipped_model(smollm2_gguf: Path) -> None:
    tokenizer = assert_equal(smollm2_gguf, 3000)
    for text in texts(1000, seed=1):
        assert tokenizer.detokenize(tokenizer.encode(text, special=False, bos=False)).decode() == text


@pytest.mark.parametrize("name", sorted(_RULES.values()))
def test_every_way_to_cut_words(name: str, smollm2_gguf: Path, tmp_path: Path) -> None:
    metadata = vocabulary(read_header(smollm2_gguf, arrays=True)) | {"tokenizer.ggml.pre": name}
    del metadata["tokenizer.ggml.add_bos_token"]
    assert_equal(with_vocabulary(tmp_path / "model.gguf", metadata), 500, seed=2)


def sentence_pieces() -> dict[str, Value]:
    """Control tokens, bytes, and pieces of the shipped texts' words: every prefix and suffix, long ones scored low."""
    found: dict[str, int] = {}
    for text in texts(300, seed=3):
        for word in text.replace(" ", " ▁").split():
            for size in range(1, min(len(word), 7) + 1):
                for start in {0, len(word) - size, len(word) // 2}:
                    if len(piece := word[start : start + size]) == size:
                        found[piece] = found.get(piece, 0) + 1
    pieces = sorted(found, key=lambda piece: (-found[piece] * len(piece), piece))[:6000]
    pieces += ["▁▁", "▁▁▁▁"]
    named = ["<|user|>", "<|endoftext|>", "[tool]"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces, *named]
    kinds = [2, 3, 3, *[6] * 256, *[1] * len(pieces), 3, 3, 4]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [-float(place // 3) for place in range(len(tokens))],
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tokenizer.ggml.add_space_prefix": False, "tokenizer.ggml.add_bos_token": False},
        {"general.name": "Phi-3 mini"},
        {"across": True},
    ],
    ids=["plain", "no space before", "phi-3", "pieces across words"],
)
def test_sentence_pieces(changes: dict[str, Value], tmp_path: Path) -> None:
    metadata = sentence_pieces()
    if changes.pop("across", False):
        metadata["tokenizer.ggml.tokens"][300] = "e▁t"  # type: ignore[index]
    assert_equal(with_vocabulary(tmp_path / "model.gguf", metadata | changes), 1000, seed=4)


def test_pieces_with_recorded_merges(tmp_path: Path) -> None:
    """Gemma 4's: SentencePiece's pieces, merged in the order that the file records."""
    metadata = sentence_pieces()
    tokens = metadata["tokenizer.ggml.tokens"]
    assert isinstance(tokens, list)
    ends = [*("\n" * count for count in (1, 2, 4)), "\t", "▁▁▁"]
    pieces = dict.fromkeys([*tokens[259:-3], *ends, *(letter for text in texts(300, seed=3) for letter in text)])
    pieces.pop(" ")
    tokens[259:-3] = pieces
    known = set(pieces)
    merges = [
        f"{piece[:cut]} {piece[cut:]}"
        for piece in sorted(pieces, key=lambda piece: (len(piece), piece))
        for cut in range(1, len(piece))
        if piece[:cut] in known and piece[cut:] in known and "\n" not in piece
    ]
    changes: dict[str, Value] = {
        "tokenizer.ggml.model": "gemma4",
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.token_type": [2, 3, 3, *[6] * 256, *[1] * len(pieces), 3, 3, 4],
        "tokenizer.ggml.scores": [0.0] * len(tokens),
        "tokenizer.ggml.add_space_prefix": False,
    }
    assert_equal(with_vocabulary(tmp_path / "model.gguf", metadata | changes), 1000, seed=5)


CALLS = frozenset({"<|return|>", "<|call|>", "<|calls|>", "<|flush|>"})
NO_ENDS = ("<|eot|>", "<|end_of_turn|>", "<|eos|>", "<|endofresponse|>", "<|role_end|>", "[|endofturn|]", "<seed:eos>")
"""Texts of some models that end nothing unless the file says so."""


@pytest.mark.parametrize(
    ("left_out", "named"),
    [
        (frozenset(), {}),
        (CALLS, {"eot": "<|eot|>", "fim_sep": "<|role_end|>"}),
        (frozenset({"<|tool_response>"}), {"eom": "<seed:eos>"}),
        (CALLS - {"<|call|>", "<|flush|>"}, {}),
        (CANDIDATES - {"<|end|>"}, {}),
    ],
    ids=["all", "no calls, two by role", "no tool's response, one by role", "one of both kinds of call", "one"],
)
async def test_both_engines_end_answers_as_llama_cpp_does(
    left_out: frozenset[str], named: dict[str, str], tmp_path: Path
) -> None:
    # Of the texts for one role a vocabulary has one.
    others = frozenset[str]().union(*(of_role - {min(of_role)} for of_role in ROLE_TEXTS.values()))
    ends = sorted(CANDIDATES - left_out - others - {"</s>"})
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "a", *ends, *NO_ENDS]
    metadata: dict[str, Value] = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [0.0] * len(tokens),
        "tokenizer.ggml.token_type": [2, 3, 3, *[6] * 256, 1, *[3] * (len(tokens) - 260)],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        **{f"tokenizer.ggml.{role}_token_id": tokens.index(text) for role, text in named.items()},
    }
    model = with_vocabulary(tmp_path / "model.gguf", metadata)
    theirs = llama_cpp({"model": str(model), "texts": []})["ends"]
    assert list(Tokenizer(read_header(model, arrays=True)).eos) == theirs
    llama = await LlamaEngine(Settings(models=Path("none"))).start(files(model), LoadOptions(num_ctx=64, slots=1))
    try:
        assert list(llama.info.eos) == theirs
    finally:
        await llama.close()


def test_a_vocabulary_without_its_tokens_is_refused(smollm2_gguf: Path) -> None:
    header = read_header(smollm2_gguf)
    with pytest.raises(ModelFileError, match="tokens"):
        Tokenizer(header)
