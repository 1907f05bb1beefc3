"""Completions over the scripted engine."""

from __future__ import annotations

import math

import pytest

from fakes.house import done_of, events_of, finished_of, make_model, open_house, started_of, text_of
from puna.errors import ContextLengthExceeded, InvalidRequest, Unsupported
from puna.model.gguf import Header, SpecialToken
from puna.types import CompletionRequest, JsonOutput, Options, TextDelta


def complete(*prompts: str | tuple[int, ...], **changes: object) -> CompletionRequest:
    return CompletionRequest(model="m", prompts=prompts, **changes)  # type: ignore[arg-type]


def entries_of(events, index: int = 0):
    deltas = [event for event in events if isinstance(event, TextDelta) and event.index == index]
    return [entry for delta in deltas for entry in delta.logprobs]


async def test_the_prompt_is_continued_as_it_is() -> None:
    async with open_house({"default": {"echo": "prompt"}}) as h:
        events = await events_of(h, complete("Once <|im_end|>upon", tuple(b"ids")))
    assert text_of(events, 0) == "Once upon"
    assert text_of(events, 1) == "ids"
    assert done_of(events).usage.prompt == len("Once upon") + 1 + 3


async def test_choices_are_numbered_prompt_by_prompt() -> None:
    async with open_house({"default": {"echo": "prompt"}}, slots=2) as h:
        events = await events_of(h, complete("a", "b", "c", n=2))
    assert [text_of(events, index) for index in range(6)] == ["a", "a", "b", "b", "c", "c"]
    assert done_of(events).usage.prompt == 3


async def test_equal_prompts_are_answered_apart_unless_a_seed_is_given() -> None:
    script = {"default": {"choices": [{"text": str(number)} for number in range(1000)]}}
    async with open_house(script) as h:
        free = await events_of(h, complete(*["x"] * 8))
        seeded = await events_of(h, complete(*["x"] * 8, options=Options(seed=3)))
    assert len({text_of(free, index) for index in range(8)}) > 1
    assert {text_of(seeded, index) for index in range(8)} == {"3"}


async def test_echo() -> None:
    async with open_house({"default": {"text": " more"}}) as h:
        events = await events_of(h, complete("Some", tuple(b"ids"), echo=True))
        assert (text_of(events, 0), text_of(events, 1)) == ("Some more", "ids more")
        nothing = await events_of(h, complete("Some", echo=True, options=Options(num_predict=0)))
    assert (text_of(nothing), finished_of(nothing).reason) == ("Some", "length")


async def test_echo_with_log_probabilities() -> None:
    async with open_house({"default": {"text": "!"}}) as h:
        events = await events_of(h, complete("Hé", echo=True, logprobs=1, options=Options(num_predict=1)))
    entries = entries_of(events)
    assert b"".join(entry.chosen.data for entry in entries).decode() == "Hé!" == text_of(events)
    assert math.isnan(entries[0].chosen.logprob)
    assert entries[0].top == ()
    assert all(entry.chosen.logprob < 0 and len(entry.top) == 1 for entry in entries[1:])


async def test_a_bos_that_the_model_adds_is_no_part_of_the_echo() -> None:
    async with open_house({"models": [{"bos": True}], "default": {"text": "!"}}) as h:
        events = await events_of(h, complete("Hi", echo=True, logprobs=0))
    assert len(started_of(events).prompt_tokens) == 3
    assert [entry.chosen.data for entry in entries_of(events)] == [b"H", b"i", b"!"]
    assert not math.isnan(entries_of(events)[0].chosen.logprob)


async def test_best_of_gives_the_likeliest() -> None:
    answers = [{"text": "a", "logprobs": [-3.0]}, {"text": "b", "logprobs": [-1.0]}, {"text": "c", "logprobs": [-2.0]}]
    async with open_house({"default": {"choices": answers}}) as h:
        events = await events_of(h, complete("x", n=2, best_of=12, options=Options(seed=3)))
    assert [text_of(events, 0), text_of(events, 1)] == ["b", "b"]
    assert {event.index for event in events if isinstance(event, TextDelta)} == {0, 1}
    assert entries_of(events) == []
    assert done_of(events).usage.completion == 12


async def test_best_of_below_n() -> None:
    async with open_house() as h:
        with pytest.raises(InvalidRequest) as caught:
            await events_of(h, complete("x", n=3, best_of=2))
    assert caught.value.param == "best_of"


async def test_suffix_by_the_template() -> None:
    template = "{{ if .Suffix }}<{{ .Prompt }}|{{ .Suffix }}>{{ else }}{{ .Prompt }}{{ end }}"
    async with open_house({"default": {"echo": "prompt"}}, make_model(go_template=template)) as h:
        assert text_of(await events_of(h, complete("a(", suffix=")"))) == "<a(|)>"


async def test_suffix_by_the_vocabularys_own_tokens() -> None:
    tokens = {name: SpecialToken(ord(name[4]), name) for name in ("fim_pre", "fim_suf", "fim_mid")}
    header = Header(version=3, architecture="llama", metadata={}, tensors=(), special_tokens=tokens)
    async with open_house({"default": {"echo": "prompt"}}, make_model(header=header)) as h:
        assert text_of(await events_of(h, complete("A", suffix="B"))) == "pAsBm"


async def test_suffix_without_either() -> None:
    async with open_house() as h:
        with pytest.raises(Unsupported, match="does not support insert") as caught:
            await events_of(h, complete("a", suffix="b"))
    assert caught.value.param == "suffix"


@pytest.mark.parametrize(
    ("request_", "error", "param"),
    [
        (complete(), InvalidRequest, "prompt"),
        (complete((99999,)), InvalidRequest, "prompt"),
        (complete("x" * 100), ContextLengthExceeded, "prompt"),
        (complete("ok", "x" * 100), ContextLengthExceeded, "prompt"),
    ],
)
async def test_bad_prompts(request_, error, param) -> None:
    async with open_house(context=64) as h:
        with pytest.raises(error) as caught:
            await events_of(h, request_)
        assert caught.value.param == param
        assert h.busy == 0


async def test_an_empty_prompt_is_the_beginning_of_a_text() -> None:
    async with open_house({"default": {"text": "x"}}) as h:
        events = await events_of(h, complete(""))
    assert len(started_of(events).prompt_tokens) == 1
    assert text_of(events) == "x"


async def test_constrained_output() -> None:
    async with open_house({"default": {"echo": "constraint"}}) as h:
        assert "root ::=" in text_of(await events_of(h, complete("x", output=JsonOutput())))
