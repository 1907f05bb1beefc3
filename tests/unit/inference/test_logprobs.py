from __future__ import annotations

import math

import pytest

from puna.chat.text import TextStream
from puna.engine.llama.client import _candidates
from puna.engine.runner import Token
from puna.errors import EngineError
from puna.inference.choice import Choice
from puna.types import Candidate


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
@pytest.mark.parametrize("place", ["chosen", "top"])
def test_what_is_no_number_is_the_engines_error(wrong: float, place: str) -> None:
    choice = Choice(0, TextStream(), logprobs=True)
    top = (Candidate(1, b"a", wrong),) if place == "top" else ()
    with pytest.raises(EngineError, match="not numbers"):
        choice.feed(Token(1, b"a", -1.0 if top else wrong, top))


def test_a_probability_of_nothing_has_a_number() -> None:
    choice = Choice(0, TextStream(), logprobs=True)
    (delta,) = choice.feed(Token(1, b"a", -math.inf, (Candidate(2, b"b", -math.inf),)))
    (entry,) = delta.logprobs  # type: ignore[union-attr]
    assert (entry.chosen.logprob, entry.top[0].logprob) == (-9999.0, -9999.0)


def test_llama_cpp_writes_null_for_it() -> None:
    (candidate,) = _candidates({"top_logprobs": [{"id": 1, "bytes": [97], "logprob": None}]}, 1)
    assert math.isnan(candidate.logprob)
