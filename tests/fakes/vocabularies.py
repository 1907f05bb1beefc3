"""Vocabularies of model families, small, and a runner that only tokenises with one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace

from fakes.gguf_files import byte_tokens
from puna.engine.cpu.tokenizer import Tokenizer, TokenKind
from puna.model.gguf import Header
from puna.model.markup import Markup
from puna.model.metadata import MetadataValue

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_MERGED = ("us", "er", "user", "sy", "st", "em", "sta", "rt", "en", "end", "im", "<|", "|>", "Ġt", "he", "Ċ<", "ĊĊ")
_PARTS = {"user": ("us", "er"), "sta": ("st", "a"), "end": ("en", "d")}


def byte_level(
    pre: str, control: Sequence[str], defined: Sequence[str] = (), *, name: str = "", bos: str = ""
) -> Tokenizer:
    """A byte-level vocabulary with some merges, `control` tokens and user-`defined` ones."""
    merged = [token for token in _MERGED if token not in {"Ġt", "he"}]
    tokens = [*byte_tokens()[:258], *merged, *control, *defined]
    merges = [" ".join(_PARTS.get(token, (token[0], token[1:]))) for token in _MERGED]
    return _tokenizer(
        tokens,
        [TokenKind.NORMAL] * (258 + len(merged))
        + [TokenKind.CONTROL] * len(control)
        + [TokenKind.USER_DEFINED] * len(defined),
        {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": pre, "tokenizer.ggml.merges": tuple(merges)},
        name,
        bos,
    )


def sentence_pieces(control: Sequence[str], defined: Sequence[str] = (), *, name: str = "", bos: str = "") -> Tokenizer:
    """A vocabulary of SentencePiece's kind: control and user-defined tokens, bytes, letters and some pieces."""
    pieces = ["▁", *_LETTERS, "▁a", "▁s", "us", "er", "user", "st", "sys", "em", "<|", "|>", "▁▁", "end", "▁b"]
    tokens = ["<unk>", *control, *(f"<0x{byte:02X}>" for byte in range(256)), *pieces, *defined]
    kinds = [
        TokenKind.UNKNOWN,
        *[TokenKind.CONTROL] * len(control),
        *[TokenKind.BYTE] * 256,
        *[TokenKind.NORMAL] * len(pieces),
    ]
    kinds += [TokenKind.USER_DEFINED] * len(defined)
    scores = tuple(float(len(token)) for token in tokens)
    return _tokenizer(tokens, kinds, {"tokenizer.ggml.model": "llama", "tokenizer.ggml.scores": scores}, name, bos)


def _tokenizer(
    tokens: Sequence[str], kinds: Sequence[TokenKind], more: Mapping[str, MetadataValue], name: str, bos: str
) -> Tokenizer:
    metadata: dict[str, MetadataValue] = {
        "general.name": name,
        "tokenizer.ggml.tokens": tuple(tokens),
        "tokenizer.ggml.token_type": tuple(kind.value for kind in kinds),
        "tokenizer.ggml.add_bos_token": bool(bos),
        **more,
    }
    if bos:
        metadata["tokenizer.ggml.bos_token_id"] = tokens.index(bos)
    return Tokenizer(Header(version=3, architecture="llama", metadata=metadata, tensors=()))


@dataclass
class TokenizingRunner:
    """A Runner that tokenises and nothing else."""

    tokenizer: Tokenizer

    def __post_init__(self) -> None:
        self.info = SimpleNamespace(
            bos=self.tokenizer.bos,
            add_bos=self.tokenizer.add_bos,
            markup=Markup(self.tokenizer.markup),
            num_ctx=1 << 20,
        )

    async def tokenize(self, text: str, *, special: bool, bos: bool) -> list[int]:
        return self.tokenizer.encode(text, special=special, bos=bos)

    async def detokenize(self, tokens: Sequence[int]) -> bytes:
        return self.tokenizer.detokenize(tokens)
