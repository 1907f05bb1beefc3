"""How long a prompt is at least, told before it is tokenised.

A text of millions of characters takes seconds to tokenise, only to be refused. But no token stands for more characters
than the longest of the vocabulary has, so a text has a least number of tokens. White space is not counted: some control
tokens swallow what stands beside them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate

from puna.chat.disguise import Given
from puna.errors import ContextLengthExceeded
from puna.lane import in_lane
from puna.model.gguf import Header

MANY_MESSAGES = 500
LONG_TEXT = 100_000
"""Characters over which a conversation is looked at beside the event loop."""

_EXACT = frozenset({"gpt2", "llama", "gemma4"})
"""Kinds of vocabularies that leave nothing of a text out. Others normalise it, or have one token for the unknown."""

_PART = 100
"""Characters that a text is worth, whatever is in it."""

_SPACES = " \n\t\r"


def is_long(given: Given) -> bool:
    """Whether it takes a while to look through this."""
    if len(given.messages) > MANY_MESSAGES:
        return True
    so_far = accumulate(len(text) + _PART for text in given.strings())
    return any(length > LONG_TEXT for length in so_far)


def check_least(
    texts: Iterable[str], header: Header | None, num_ctx: int, *, param: str = "messages", what: str = "messages"
) -> None:
    """ContextLengthExceeded for texts that cannot fit."""
    longest = None if header is None else longest_token(header)
    if longest is None:
        return
    least = -(-sum(map(_written, texts)) // longest)
    if least >= num_ctx:
        raise ContextLengthExceeded(least, num_ctx, param=param, what=what, least=True)


async def check_least_beside(
    texts: Sequence[str], header: Header | None, num_ctx: int, *, param: str, what: str
) -> None:
    """The same, beside the event loop where one of them is long."""
    if any(len(text) > LONG_TEXT for text in texts):
        await in_lane(lambda: check_least(texts, header, num_ctx, param=param, what=what))


def _written(text: str) -> int:
    """Characters but for white space. Of a text that is not long it does not matter."""
    if len(text) <= LONG_TEXT:
        return 0
    # In pieces: nothing else runs while one is counted.
    pieces = (text[start : start + LONG_TEXT] for start in range(0, len(text), LONG_TEXT))
    return len(text) - sum(piece.count(space) for piece in pieces for space in _SPACES)


def longest_token(header: Header) -> int | None:
    """Bytes of the longest token's text, which is as long as what it stands for, or longer. None: not known."""
    if header.text("tokenizer.ggml.model") not in _EXACT:
        return None
    return header.longest_token or None
