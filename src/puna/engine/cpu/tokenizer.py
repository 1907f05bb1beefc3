"""Tokenizer: text to ids and back, from what the model file holds and nothing else; equal to llama.cpp's.

Three kinds: byte-level BPE (words of a pattern, then recorded merges), SentencePiece's (scores), and Gemma 4's, which
has SentencePiece's pieces and recorded merges. Texts of special tokens are found first, the longest first, whatever the
kind.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import IntEnum

from puna.engine.cpu.lists import ByteTexts, Places
from puna.engine.cpu.pieces import SPACE, Merger, by_scores, remembered
from puna.engine.cpu.words import WORD_RULES, WordRule, word_cutter
from puna.engine.endings import ROLE_TEXTS, ROLES, TEXTS, ending_tokens
from puna.engine.letters import BYTE_OF_LETTER, letters_of
from puna.errors import ModelFileError
from puna.model.gguf import Header
from puna.model.markup import is_mark, swallows
from puna.model.metadata import MetadataValue

_ROLES: Mapping[str, frozenset[str]] = {
    "fim_pre": frozenset({
        "<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>", "<PRE>", "▁<PRE>",
        "<|code_prefix|>", "<|prefix|>",
    }),
    "fim_suf": frozenset({
        "<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>", "<SUF>", "▁<SUF>",
        "<|code_suffix|>", "<|suffix|>",
    }),
    "fim_mid": frozenset({
        "<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>", "▁<MID>",
        "<|code_middle|>", "<|middle|>",
    }),
    **ROLE_TEXTS,
}  # fmt: skip
"""Texts that have a role where the file names no token for it: they are control tokens then."""

_ALWAYS_SHOWN = frozenset({"<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"})


class TokenKind(IntEnum):
    """What a token is, as files say in `tokenizer.ggml.token_type`."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


_CONTROL = frozenset({TokenKind.CONTROL, TokenKind.UNKNOWN})


class Tokenizer:
    """Needs a header read with its arrays. ModelFileError if the vocabulary is missing, damaged or of another kind.

    `bos`: the token that texts begin with where `add_bos`; `eos`: those that end an answer; `pieces`: the bytes of each
    token, see `piece`; `control`: all control tokens.
    """

    def __init__(self, header: Header) -> None:
        facts = _Metadata(header)
        self._texts = facts.texts("tokens")
        self._ids = {text: index for index, text in enumerate(self._texts)}
        self._kinds = bytearray(facts.kinds(len(self._texts)))
        kind = header.text("tokenizer.ggml.model")
        self._is_bytes, of_lines = kind == "gpt2", kind == "gemma4"
        rule = facts.rule() if self._is_bytes else WordRule((), add_bos=True)
        self.bos = facts.token("bos")
        self.add_bos = (of_lines or facts.flag("add_bos_token", rule.add_bos)) and self.bos is not None
        self.eos = self._ends(facts)
        self._space_prefix = facts.flag("add_space_prefix", not self._is_bytes) and not of_lines
        self._encode_text = (
            self._byte_level(facts, rule)
            if self._is_bytes
            else self._lines(facts)
            if of_lines
            else self._sentence_pieces(facts)
        )
        self.pieces = ByteTexts(self._make_pieces())
        self.control = frozenset([token for token, kind in enumerate(self._kinds) if kind in _CONTROL])
        self._specials = self._find_specials()
        self._eats_space = self._space_eaters(header.name or "")

    @property
    def vocabulary(self) -> int:
        """How many tokens there are."""
        return len(self._texts)

    @property
    def markup(self) -> dict[str, int]:
        """Control tokens by their texts, and what is one by its form (see `puna.model.markup.is_mark`)."""
        return {text: token for token, text in self._specials if self.is_control(token) or is_mark(text)}

    def encode(self, text: str, *, special: bool, bos: bool) -> list[int]:
        """`special`: texts of control tokens become these. `bos`: begin with it, if the model does."""
        found = [self.bos] if bos and self.add_bos and self.bos is not None else []
        after_special = True
        for part in self._parts(text, special):
            if isinstance(part, int):
                found.append(part)
                after_special = True
            else:
                prefix = " " if self._space_prefix and after_special and not self._is_bytes else ""
                found += self._encode_text(prefix + part)
                after_special = False
        return found

    def piece(self, token: int) -> bytes:
        """The bytes of a token; of a control token its text."""
        return self.pieces[token]

    def detokenize(self, tokens: Iterable[int]) -> bytes:
        return b"".join([self.pieces[token] for token in tokens])

    def is_control(self, token: int) -> bool:
        return token in self.control

    # -------------------------------------------------------------------------------------------- special tokens

    def _parts(self, text: str, special: bool) -> list[str | int]:
        """Text cut at special tokens: the longest is looked for first, everywhere."""
        parts: list[str | int] = [text] if text else []
        letters = set(text)
        for token, content in self._specials:
            if content[0] not in letters or (not special and self._kinds[token] != TokenKind.USER_DEFINED):
                continue
            if content in text:
                parts = [piece for part in parts for piece in self._cut(part, token, content)]
        return parts

    def _cut(self, part: str | int, token: int, content: str) -> list[str | int]:
        if isinstance(part, int):
            return [part]
        first, *others = part.split(content)
        found: list[str | int] = [first]
        for other in others:
            found += [token, other.lstrip(" \t\n\v\f\r") if token in self._eats_space else other]
        return [item for item in found if item != ""]

    def _find_specials(self) -> list[tuple[int, str]]:
        wanted = {TokenKind.CONTROL, TokenKind.USER_DEFINED, TokenKind.UNKNOWN}
        found = [(index, text) for index, text in enumerate(self._texts) if self._kinds[index] in wanted and text]
        return sorted(found, key=lambda item: -len(item[1].encode()))

    def _space_eaters(self, name: str) -> frozenset[int]:
        """Tokens that swallow the white space behind them."""
        if not swallows(name):
            return frozenset()
        keep = {"<unk>", "<s>", "<|endoftext|>"}
        found = {token for token, text in self._specials if text not in keep}
        return frozenset(found | ({self._ids["</s>"]} if "</s>" in self._ids else set()))

    def _ends(self, facts: _Metadata) -> tuple[int, ...]:
        """Every token that ends an answer. Texts that always do are made control tokens, as llama.cpp does."""
        named = {role: (token, self._texts[token]) for role in ROLES if (token := facts.token(role)) is not None}
        for role, role_texts in _ROLES.items():
            if facts.token(role) is None:
                self._make_control({self._ids[text] for text in role_texts & self._ids.keys()})
        self._make_control({self._ids[text] for text in TEXTS & self._ids.keys()})
        for text in _ALWAYS_SHOWN & self._ids.keys():
            self._kinds[self._ids[text]] = TokenKind.USER_DEFINED
        return ending_tokens(self._ids, named)

    def _make_control(self, tokens: Iterable[int]) -> None:
        for token in tokens:
            self._kinds[token] = TokenKind.CONTROL

    # ------------------------------------------------------------------------------------------------- the kinds

    def _recorded(self, facts: _Metadata, byte_ids: Sequence[int | None]) -> Merger:
        """Merges pairs in the order in which the file records them."""
        ids = self._ids
        # Not parted: that would take as long as packing the weights. The first of equals counts.
        order = Places(facts.texts("merges"))

        def place(left: str, right: str) -> int | None:
            return order.get(f"{left} {right}") if left + right in ids and left in ids and right in ids else None

        return Merger(ids, place, byte_ids)

    def _byte_level(self, facts: _Metadata, rule: WordRule) -> Callable[[str], list[int]]:
        merger = self._recorded(facts, [None] * 256)  # a byte that is no token is left out
        ids = self._ids
        whole = ids if rule.whole_words else {}
        cut = word_cutter(rule)

        @remembered
        def word_ids(word: str) -> tuple[int, ...]:
            letters = letters_of(word.encode())
            token = whole.get(letters)
            return merger.merged(letters) if token is None else (token,)

        return lambda text: [token for word in cut(text) for token in word_ids(word)]

    def _lines(self, facts: _Metadata) -> Callable[[str], list[int]]:
        """Merges within lines, over spaces too; line ends together are one word, which may be a token."""
        merger, ids = self._recorded(facts, self._named_bytes(lone=False)), self._ids

        @remembered
        def word_ids(word: str) -> tuple[int, ...]:
            return (ids[word],) if word[0] == "\n" and word in ids else merger.merged(word)

        return lambda text: [token for word in _LINES.findall(text.replace(" ", SPACE)) for token in word_ids(word)]

    def _named_bytes(self, *, lone: bool) -> list[int | None]:
        """Tokens of bytes by their names; `lone`: or by what they are."""
        ids = self._ids
        return [ids.get(f"<0x{byte:02X}>", ids.get(chr(byte)) if lone else None) for byte in range(256)]

    def _sentence_pieces(self, facts: _Metadata) -> Callable[[str], list[int]]:
        encode = by_scores(self._ids, facts.scores(len(self._texts)), self._named_bytes(lone=True))
        return lambda text: encode(text.replace(" ", SPACE))

    def _make_pieces(self) -> list[bytes]:
        pieces = self._normal_pieces()
        for token, kind in enumerate(self._kinds):
            if kind == TokenKind.NORMAL:
                continue
            text = self._texts[token]
            if kind in {TokenKind.CONTROL, TokenKind.UNKNOWN, TokenKind.USER_DEFINED}:
                pieces[token] = text.encode()
            else:
                pieces[token] = bytes([int(text[3:5], 16)]) if kind == TokenKind.BYTE else b""
        return pieces

    def _normal_pieces(self) -> list[bytes]:
        """What each token would be as one of plain text."""
        if not self._is_bytes:
            return [text.replace(SPACE, " ").encode() for text in self._texts]
        # All at once, which is several times as fast: no byte is put to a letter beyond U+00FF.
        quick = dict.fromkeys(range(256), _NO_BYTE) | {ord(letter): byte for letter, byte in BYTE_OF_LETTER.items()}
        parts = _BETWEEN.join(self._texts).translate(quick).split(_BETWEEN)
        try:
            if len(parts) == len(self._texts):
                return [part.encode("latin-1") for part in parts]
        except UnicodeEncodeError:
            pass
        return [_bytes_of(text) for text in self._texts]


_LINES = re.compile(r"[^\n]+|\n+")
_NO_BYTE = 0xFFFF
_BETWEEN = "\uffff"

_SENTENCE_PIECE_TOKENS: Mapping[str, int] = {"bos": 1, "eos": 2}
"""What holds for such a vocabulary that does not say."""


class _Metadata:
    """Typed look-ups of `tokenizer.ggml.<key>`."""

    def __init__(self, header: Header) -> None:
        self._header = header

    def texts(self, key: str) -> list[str]:
        return [str(text) for text in self._array(key)]

    def scores(self, count: int) -> Sequence[float]:
        scores = [float(score) for score in self._array("scores") if isinstance(score, int | float)]
        if len(scores) < count:
            raise ModelFileError("the model file's vocabulary has fewer scores than tokens")
        return scores

    def kinds(self, count: int) -> list[TokenKind]:
        if self._value("token_type") is None:
            return [TokenKind.NORMAL] * count
        kinds = [_KINDS.get(kind, TokenKind.UNUSED) for kind in self._array("token_type")]
        if len(kinds) < count:
            raise ModelFileError("the model file's vocabulary has fewer types than tokens")
        return kinds[:count]

    def rule(self) -> WordRule:
        name = self._header.text("tokenizer.ggml.pre") or "default"
        if name not in WORD_RULES:
            raise ModelFileError(f"no rule for the pre-tokenizer '{name}'")
        return WORD_RULES[name]

    def token(self, role: str) -> int | None:
        count = len(self._array("tokens"))
        token = self._header.number(f"tokenizer.ggml.{role}_token_id")
        if token is None and self._header.text("tokenizer.ggml.model") == "llama":
            token = _SENTENCE_PIECE_TOKENS.get(role)
        return token if token is not None and 0 <= token < count else None

    def flag(self, key: str, default: bool) -> bool:
        value = self._value(key)
        return value if isinstance(value, bool) else default

    def _array(self, key: str) -> tuple[bool | int | float | str, ...]:
        value = self._value(key)
        if not isinstance(value, tuple):
            raise ModelFileError(f"the model file has no usable tokenizer.ggml.{key}")
        return value

    def _value(self, key: str) -> MetadataValue | None:
        return self._header.metadata.get(f"tokenizer.ggml.{key}")


_KINDS: Mapping[object, TokenKind] = {kind.value: kind for kind in TokenKind}


def _bytes_of(text: str) -> bytes:
    """The bytes of a byte-level token; what is no letter stands for its own."""
    known = BYTE_OF_LETTER
    return b"".join(bytes([known[letter]]) if letter in known else letter.encode() for letter in text)
