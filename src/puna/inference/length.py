"""How long a prompt is at least, told before it is tokenised.

A text of millions of characters takes seconds to tokenise, only to be refused. But no token stands for more characters
than the longest of the vocabulary has, so a text has a least number of tokens. White space at the ends of a text is not
counted where templates may cut it, and none at all where a model's control tokens swallow what stands behind them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate

from puna.chat.disguise import Given
from puna.errors import ContextLengthExceeded
from puna.lane import in_lane
from puna.model.gguf import Header
from puna.model.markup import swallows

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
    texts: Iterable[str],
    header: Header | None,
    num_ctx: int,
    *,
    param: str = "messages",
    what: str = "messages",
    cut: bool = False,
) -> None:
    """ContextLengthExceeded for texts that cannot fit. `cut`: their ends may be cut before they are tokenised."""
    longest = None if header is None else longest_token(header)
    if header is None or longest is None:
        return
    count = _written if swallows(header.name or "") else _between if cut else _all
    least = -(-sum(map(count, texts)) // longest)
    if least >= num_ctx:
        raise ContextLengthExceeded(least, num_ctx, param=param, what=what, least=True)


async def check_least_beside(
    texts: Sequence[str], header: Header | None, num_ctx: int, *, param: str, what: str
) -> None:
    """The same, beside the event loop where one of them is long."""
    if any(len(text) > LONG_TEXT for text in texts):
        await in_lane(lambda: check_least(texts, header, num_ctx, param=param, what=what))


def _all(text: str) -> int:
    """Characters. Of a text that is not long it does not matter."""
    return len(text) if len(text) > LONG_TEXT else 0


def _between(text: str) -> int:
    """Characters but for white space at the ends."""
    return _all(text.strip()) if len(text) > LONG_TEXT else 0


def _written(text: str) -> int:
    """Characters but for white space."""
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
