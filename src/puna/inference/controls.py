"""Control tokens that count in an answer: stop strings and tags that a model writes as one token."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from puna.engine.runner import Runner
from puna.model.markup import Markup


async def control_bytes(runner: Runner, marks: Iterable[str]) -> dict[int, bytes]:
    """The bytes that stand for a control token, by its id, for each token that a mark is written with.

    A Runner gives control tokens without bytes. Ordinary tokens among these are harmless: they come with their own.
    """
    texts = [mark for mark in dict.fromkeys(marks) if _may_be_control(mark)]
    ids = await asyncio.gather(*(runner.tokenize(text, special=True, bos=False) for text in texts))
    known = {token for row in ids for token in row}
    pieces = await asyncio.gather(*(runner.detokenize([token]) for token in known))
    return dict(zip(known, pieces, strict=True))


def all_control_bytes(markup: Markup) -> dict[int, bytes]:
    """The same of every control token. A grammar that holds an answer may read them as their texts: llama.cpp's do."""
    return {token: text.encode() for text, token in markup.ids.items()}


def in_a_form(stops: Sequence[str], markup: Markup) -> tuple[str, ...]:
    """A model's own stop strings where the whole answer is a form: its grammar ends it, and what ends a turn elsewhere
    is text inside its texts.
    """
    return tuple(stop for stop in stops if stop not in markup.ids)


def _may_be_control(mark: str) -> bool:
    """Control tokens are written in brackets, in every vocabulary seen."""
    return mark[:1] in "<[｜" and mark.rstrip()[-1:] in ">]｜"
