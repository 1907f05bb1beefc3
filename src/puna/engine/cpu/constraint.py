"""A Constraint at work: which tokens a grammar lets through next. Over `llguidance` and the model's own vocabulary.

A mask covers every way to cut the allowed text into tokens, so sampling is exactly that of the model with the forbidden
tokens taken out. The end of an answer is allowed where the grammar may end, and nowhere else; control tokens never are.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import llguidance

from puna.engine.cpu.deep import deep
from puna.engine.cpu.grammar import depth, parse, to_lark
from puna.engine.cpu.mask import Mask
from puna.errors import EngineError, InvalidRequest

MARK = b"\xff"

KEPT = 64
"""Compiled grammars that are kept: those used last."""

LIMITS = llguidance.LLParserLimits(
    max_items_in_row=10_000, step_max_items=2_000_000, step_lexer_fuel=5_000_000, verbose_errors=False
)
"""One character a lexeme makes more work than the library's defaults expect, and a mask looks at some 200,000 places of
a large vocabulary: two patterns that one text must match are more than three items at each. Still bounded.
"""

LEVEL = 8192
"""Bytes of stack with which the library compiles a rule or a bracket inside another: twice what was measured. Of
a schema's properties each is a rule that leads to the next, for thousands.
"""

CHEAP = 0.05
"""Seconds of a processor that a mask may take whenever it likes; few take a tenth of that, some patterns half."""

PATIENCE = 5.0
"""Seconds of a processor that an answer's masks may take beyond that, all together. Each holds all that are computed in
the same step, and no bound of the library is near to its time: that grows with the square of what is open.
"""


@dataclass(frozen=True, slots=True)
class TokenTable:
    """What a grammar sees of a model: the bytes of every token, which of them are no text, and which end an answer."""

    pieces: Sequence[bytes]
    control: frozenset[int]
    eos: Sequence[int]


class _Wrapper:
    """The shape in which the library takes a vocabulary. It never asks for a text's tokens (see `grammar.to_lark`)."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, vocabulary: TokenTable, never: int) -> None:
        special = {*vocabulary.control, *vocabulary.eos, never}
        self.tokens = [
            # The library marks special tokens with the byte 0xFF, which is in no text.
            f"<{token}>".encode() if token in special else b"" if MARK in piece else piece
            for token, piece in enumerate([*vocabulary.pieces, b""])
        ]
        self.special_token_ids = sorted(special)
        self.eos_token_id = vocabulary.eos[0] if vocabulary.eos else never

    def __call__(self, text: str | bytes) -> list[int]:
        raise EngineError("a grammar forced its tokens")


class _Toll:
    """What the masks of one answer have taken beyond what is cheap."""

    def __init__(self) -> None:
        self._spent = 0.0

    @contextmanager
    def taken(self) -> Iterator[None]:
        """InvalidRequest when it becomes too much."""
        begun = time.thread_time()
        yield
        self._spent += max(time.thread_time() - begun - CHEAP, 0.0)
        if self._spent > PATIENCE:
            reason = "its texts can be read in so many ways that to follow them takes too long"
            raise InvalidRequest(f"This grammar cannot be followed: {reason}.", param="grammar", code="invalid_grammar")


class GrammarMatcher:
    """One answer's way through a grammar. Used by one thread at a time, its forks by the same."""

    def __init__(self, matcher: llguidance.LLMatcher, vocabulary: int, toll: _Toll | None = None) -> None:
        self._matcher = matcher
        self._vocabulary = vocabulary
        self._toll = toll or _Toll()

    def mask(self) -> Mask:
        """Which tokens may come next. InvalidRequest when the grammar has become too much."""
        mask = Mask(self._vocabulary + 1)  # one more than there are: see `_Wrapper`
        with self._toll.taken():
            self._matcher.unsafe_compute_mask_ptr(mask.address, mask.words.nbytes)
        self._check()
        return mask

    def accept(self, token: int) -> bool:
        """`token` has come. True: the text is complete, and nothing could follow."""
        with self._toll.taken():
            self._matcher.consume_token(token)
        self._check()
        return bool(self._matcher.is_stopped())

    def follows(self, tokens: Sequence[int]) -> int:
        """How many of these, from the first on, the grammar lets through one after the other."""
        with self._toll.taken():
            return int(self._matcher.validate_tokens(list(tokens)))

    def fork(self) -> GrammarMatcher:
        """Another at the same place."""
        return GrammarMatcher(self._matcher.deep_copy(), self._vocabulary, self._toll)

    def _check(self) -> None:
        if self._matcher.is_error():
            # Ours to raise so: what the caller asked for leaves too many readings open.
            reason = f"This grammar cannot be followed: {_first_line(self._matcher.get_error())}."
            raise InvalidRequest(reason, param="grammar", code="invalid_grammar")


class Grammars:
    """Compiles grammars for one model and keeps those used last. Safe from several threads; compiling takes a while."""

    def __init__(self, vocabulary: TokenTable) -> None:
        self._size = len(vocabulary.pieces)
        self._vocabulary = vocabulary
        self._tokenizer: llguidance.LLTokenizer | None = None
        self._compiled: OrderedDict[str, llguidance.LLMatcher] = OrderedDict()
        self._lock = threading.Lock()

    def matcher(self, gbnf: str) -> GrammarMatcher:
        """At the beginning of the grammar. InvalidRequest naming `grammar` when it is none, or too large."""
        with self._lock:
            compiled = self._compiled.get(gbnf)
            tokenizer = self._vocabulary_for_library()
        if compiled is None:
            compiled = _compile(gbnf, tokenizer)
        with self._lock:
            self._compiled[gbnf] = compiled
            self._compiled.move_to_end(gbnf)
            if len(self._compiled) > KEPT:
                self._compiled.popitem(last=False)
            return GrammarMatcher(compiled.deep_copy(), self._size)

    def _vocabulary_for_library(self) -> llguidance.LLTokenizer:
        """Made at the first grammar: it takes a sixth of a second that many servers never need."""
        if self._tokenizer is None:
            wrapper = _Wrapper(self._vocabulary, never=self._size)
            eos = list(self._vocabulary.eos) or None
            self._tokenizer = llguidance.LLTokenizer(wrapper, n_vocab=self._size + 1, eos_token=eos)
        return self._tokenizer


def _compile(gbnf: str, tokenizer: llguidance.LLTokenizer) -> llguidance.LLMatcher:
    rules = parse(gbnf)
    grammar = llguidance.LLMatcher.grammar_from_lark(to_lark(rules))
    try:
        matcher = deep(
            depth(rules), LEVEL, lambda: llguidance.LLMatcher(tokenizer, grammar, log_level=0, limits=LIMITS)
        )
    except MemoryError as error:
        reason = f"This grammar cannot be used: {error}."
        raise InvalidRequest(reason, param="grammar", code="invalid_grammar") from error
    if matcher.is_error():
        reason = f"This grammar cannot be used: {_first_line(matcher.get_error())}."
        raise InvalidRequest(reason, param="grammar", code="invalid_grammar")
    return matcher


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else "no reason given"
