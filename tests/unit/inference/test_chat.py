"""Chats over the scripted engine."""

from __future__ import annotations

import asyncio
import json

import pytest

from fakes.house import (
    CHATML,
    ask,
    done_of,
    events_of,
    finished_of,
    make_model,
    open_house,
    started_of,
    text_of,
    thinking_of,
)
from puna.errors import ContextLengthExceeded, EngineError, InvalidRequest, ModelNotFound, RunnerDied, Unsupported
from puna.inference.thought import ThoughtWatch
from puna.model.capabilities import Capability
from puna.types import (
    AudioPart,
    ChatRequest,
    Event,
    Grammar,
    ImagePart,
    JsonObject,
    JsonOutput,
    Message,
    Options,
    Started,
    TextDelta,
    TextPart,
    ThinkingDelta,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolCallStart,
    ToolChoice,
)

WEATHER = Tool("get_weather", "", {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]})
THINKER = CHATML + "{% if enable_thinking is defined %}{{ enable_thinking }}{% endif %}{# <think> </think> #}"


def echo(what: str) -> dict[str, object]:
    return {"default": {"echo": what}}


async def test_text_and_usage() -> None:
    async with open_house({"default": {"text": "Hëllo 😀!"}}) as h:
        events = await events_of(h, ask("Hi"))
    assert text_of(events) == "Hëllo 😀!"
    assert finished_of(events).reason == "stop"
    assert done_of(events).usage.completion == len(finished_of(events).tokens)
    # Three control tokens, the other characters a token each.
    prompt = len(started_of(events).prompt_tokens)
    assert done_of(events).usage.prompt == prompt == 3 + len("user\nHi\nassistant\n")
    assert h.busy == 0


async def test_the_prompt_is_the_templates() -> None:
    async with open_house(echo("prompt"), make_model(system="Be brief.")) as h:
        events = await events_of(h, ask("Hi"))
    assert "system\nBe brief." in text_of(events)
    assert text_of(events).endswith("user\nHi\nassistant\n")


async def test_a_requests_system_message_replaces_the_models() -> None:
    async with open_house(echo("prompt"), make_model(system="Be brief.")) as h:
        messages = (Message.of("system", "Be long."), Message.of("user", "Hi"))
        events = await events_of(h, ChatRequest(model="m", messages=messages))
    assert "Be long." in text_of(events)
    assert "Be brief." not in text_of(events)


async def test_stored_messages_come_first_unless_there_is_a_context() -> None:
    stored = (Message.of("user", "Stored?"), Message.of("assistant", "Yes."))
    async with open_house(echo("prompt"), make_model(messages=stored)) as h:
        assert "Stored?" in text_of(await events_of(h, ask()))
        events = await events_of(h, ask(context=tuple(b"earlier ")))
    assert text_of(events).startswith("earlier ")
    assert "Stored?" not in text_of(events)


async def test_the_request_may_bring_its_template() -> None:
    async with open_house(echo("prompt")) as h:
        assert (
            text_of(await events_of(h, ask(template="{% for m in messages %}J:{{ m.content }}{% endfor %}"))) == "J:Hi"
        )
        assert text_of(await events_of(h, ask(template="G:{{ .Prompt }}"))) == "G:Hi"


async def test_the_go_template_wins() -> None:
    async with open_house(echo("prompt"), make_model(go_template="Q: {{ .Prompt }}\nA: ")) as h:
        assert text_of(await events_of(h, ask())) == "Q: Hi\nA: "


async def test_a_model_without_a_template_gets_chatml() -> None:
    async with open_house(echo("prompt"), make_model(template=None)) as h:
        assert text_of(await events_of(h, ask())) == "user\nHi\nassistant\n"


async def test_options_reach_the_engine() -> None:
    model = make_model(options=Options(top_p=0.5, temperature=0.3))
    async with open_house(echo("sampling"), model) as h:
        asked = ask(options=Options(temperature=0.1, seed=2**40, num_predict=1000))
        said = json.loads(text_of(await events_of(h, asked)))
    assert (said["temperature"], said["top_p"], said["top_k"]) == (0.1, 0.5, 40)
    assert said["seed"] < 2**32
    assert said["max_tokens"] == 1000


async def test_without_a_limit_until_the_context_is_full() -> None:
    async with open_house(echo("sampling"), context=200) as h:
        events = await events_of(h, ask())
        tokens = len(started_of(events).prompt_tokens)
        limit = "".join(text_of(events))
    assert f'"max_tokens": {200 - tokens}' in limit


async def test_max_tokens_is_the_end() -> None:
    async with open_house({"default": {"text": "one two three four"}}) as h:
        events = await events_of(h, ask(options=Options(num_predict=2)))
        assert text_of(events) == "one two"
        assert finished_of(events).reason == "length"
        nothing = await events_of(h, ask(options=Options(num_predict=0)))
    assert (text_of(nothing), finished_of(nothing).reason, done_of(nothing).usage.completion) == ("", "length", 0)


async def test_a_full_context_is_the_end() -> None:
    async with open_house({"default": {"text": "x", "repeat": True}}, context=64) as h:
        events = await events_of(h, ask(options=Options(num_predict=1000)))
    assert finished_of(events).reason == "length"
    assert done_of(events).usage.prompt + done_of(events).usage.completion == 64


async def test_a_prompt_over_the_context_is_refused() -> None:
    async with open_house(context=64) as h:
        with pytest.raises(ContextLengthExceeded) as caught:
            await events_of(h, ask("x" * 100))
        assert caught.value.limit == 64
        assert h.busy == 0


async def test_truncate_leaves_out_the_oldest_turns_and_says_so() -> None:
    turns = tuple(Message.of("user" if i % 2 == 0 else "assistant", f"turn {i}") for i in range(9))
    messages = (Message.of("system", "Keep."), *turns)
    async with open_house(echo("prompt"), context=160) as h:
        events = await events_of(h, ChatRequest(model="m", messages=messages, truncate=True))
        shown = await h.inference.detokenize("m", started_of(events).prompt_tokens)
        dropped = started_of(events).dropped_messages
        assert "Keep." in shown
        assert "turn 8" in shown
        assert "turn 0" not in shown
        assert dropped == 9 - shown.count("\nturn")
        # One more would not have fit.
        kept = (messages[0], *messages[dropped:])
        assert (await h.inference.counted(ChatRequest(model="m", messages=kept))).count >= 160
        with pytest.raises(ContextLengthExceeded):
            await events_of(h, ask("x" * 200, truncate=True))


async def test_stop_strings() -> None:
    async with open_house({"default": {"tokens": ["one S", "T", "OP two"]}}) as h:
        events = await events_of(h, ask(options=Options(stop=("STOP", "#"))))
    assert text_of(events) == "one "
    assert (finished_of(events).reason, finished_of(events).stop) == ("stop", "STOP")
    assert done_of(events).usage.completion == len(finished_of(events).tokens)


async def test_a_stop_string_that_is_a_control_token() -> None:
    async with open_house({"default": {"text": "one<|im_start|>two"}}) as h:
        events = await events_of(h, ask(options=Options(stop=("<|im_start|>",))))
        assert (text_of(events), finished_of(events).stop) == ("one", "<|im_start|>")
        assert text_of(await events_of(h, ask())) == "onetwo"


async def test_choices_share_the_prompt_and_appear_in_order() -> None:
    answers = [{"text": f"answer {i} and some more"} for i in range(3)]
    async with open_house({"default": {"choices": answers}}, slots=2) as h:
        events = await events_of(h, ask(n=7, options=Options(seed=1)))
    deltas = [event.index for event in events if isinstance(event, TextDelta)]
    assert list(dict.fromkeys(deltas)) == list(range(7))
    assert {text_of(events, index) for index in range(7)} <= {answer["text"] for answer in answers}
    assert len({text_of(events, index) for index in range(7)}) > 1
    usage = done_of(events).usage
    assert usage.prompt == len(started_of(events).prompt_tokens)
    assert usage.completion == sum(len(finished_of(events, index).tokens) for index in range(7))


async def test_one_entry_a_token_and_their_bytes_are_the_text() -> None:
    text = "Grüße 😀 日本語 und mehr"
    async with open_house({"default": {"text": text}}) as h:
        events = await events_of(h, ask(logprobs=2))
    entries = [entry for event in events if isinstance(event, TextDelta) for entry in event.logprobs]
    assert len(entries) == done_of(events).usage.completion
    assert b"".join(entry.chosen.data for entry in entries).decode() == text
    assert all(len(entry.top) == 2 for entry in entries)
    shown = ""
    for event in events:
        if isinstance(event, TextDelta):
            shown += event.text
            assert b"".join(entry.chosen.data for entry in event.logprobs).decode() == event.text
    assert shown == text


async def test_entries_of_a_stop_string_are_not_shown() -> None:
    async with open_house({"default": {"tokens": ["one", " ST", "OP"]}}) as h:
        events = await events_of(h, ask(logprobs=0, options=Options(stop=(" STOP",))))
    entries = [entry.chosen.data for event in events if isinstance(event, TextDelta) for entry in event.logprobs]
    assert (text_of(events), entries) == ("one", [b"one"])


async def test_thinking() -> None:
    script = {"default": {"thinking": "Let me see.", "text": "Four."}}
    async with open_house(script, make_model(template=THINKER)) as h:
        events = await events_of(h, ask(think=True, logprobs=0))
    assert (thinking_of(events), text_of(events)) == ("Let me see.", "Four.")
    usage, tokens = done_of(events).usage, finished_of(events).tokens
    assert 0 < usage.reasoning < usage.completion == len(tokens)
    answer = [entry.chosen.data for event in events if isinstance(event, TextDelta) for entry in event.logprobs]
    assert b"".join(answer) == b"Four."
    assert started_of(events).ignored == ()


LONG_THOUGHT: dict[str, object] = {
    "rules": [{"when": {"contains": "</think>"}, "answer": {"text": "Four."}}],
    "default": {"thinking": "one two three four five six", "text": "Never said."},
}


async def test_a_thought_over_its_budget_is_closed_and_the_answer_goes_on() -> None:
    """`<think>`, `one` with the line break before it, and ` two` are its tokens."""
    async with open_house(LONG_THOUGHT, make_model(template=THINKER)) as h:
        events = await events_of(h, ask("Hi", think_budget=3, options=Options(num_predict=100)))
        whole = await events_of(h, ask("Hi", think_budget=100, options=Options(num_predict=100)))
        assert (thinking_of(events), text_of(events)) == ("one two", "Four.")
        assert (thinking_of(whole), text_of(whole)) == ("one two three four five six", "Never said.")
        usage, ids = done_of(events).usage, finished_of(events).tokens
        assert (usage.prompt, usage.completion) == (len(started_of(events).prompt_tokens), len(ids))
        text = await h.inference.detokenize("m", ids)
        assert text == "<think>\none two\n</think>\n\nFour."
        # `Four` and `.` are the answer.
        assert usage.reasoning == len(ids) - 2
    assert h.busy == 0


async def test_a_budget_of_nothing_and_a_thought_that_the_prompt_opened() -> None:
    template = CHATML.replace("assistant\n", "assistant\n<think>") + "{# </think> #}"
    async with open_house(LONG_THOUGHT, make_model(template=template)) as h:
        events = await events_of(h, ask("Hi", think_budget=0))
    assert (thinking_of(events), text_of(events)) == ("", "Four.")


async def test_what_a_closed_thought_leaves_of_the_limit() -> None:
    async with open_house(LONG_THOUGHT, make_model(template=THINKER)) as h:
        events = await events_of(h, ask("Hi", think_budget=3, options=Options(num_predict=5)))
    assert (thinking_of(events), text_of(events)) == ("one two", "")
    assert finished_of(events).reason == "length"


@pytest.mark.parametrize("budget", [0, 1, 3, 9])
@pytest.mark.parametrize("inside", [False, True])
async def test_what_closes_a_thought_counts_within_the_limit(budget: int, inside: bool) -> None:
    """`</think>` and what stands about it are three tokens here."""
    opened = CHATML.replace("assistant\n", "assistant\n<think>") + "{# </think> #}"
    async with open_house(LONG_THOUGHT, make_model(template=opened if inside else THINKER)) as h:
        for most in range(1, 14):
            events = await events_of(h, ask("Hi", think_budget=budget, options=Options(num_predict=most)))
            usage, finished = done_of(events).usage, finished_of(events)
            assert usage.completion == len(finished.tokens) <= most
            assert finished.reason == ("stop" if text_of(events) == "Four." else "length")
            assert usage.prompt == len(started_of(events).prompt_tokens)
    assert h.busy == 0


async def test_a_stop_string_is_not_looked_for_in_what_closes_a_thought() -> None:
    async with open_house(LONG_THOUGHT, make_model(template=THINKER)) as h:
        events = await events_of(h, ask("Hi", think_budget=3, options=Options(stop=("\n\n", "ur"))))
    assert (thinking_of(events), text_of(events)) == ("one two", "Fo")
    assert finished_of(events).stop == "ur"


async def test_the_form_of_an_answer_begins_after_the_closed_thought() -> None:
    """The engine's grammar of the second run has no thought before the answer."""
    script = {
        "rules": [{"when": {"contains": "</think>"}, "answer": {"echo": "constraint"}}],
        "default": {"thinking": "one two three", "text": "x"},
    }
    async with open_house(script, make_model(template=THINKER)) as h:
        grammar = Grammar("gbnf", 'root ::= "yes"')
        events = await events_of(h, ask("Hi", think_budget=2, output=grammar))
    assert "yes" in text_of(events)
    assert "think" not in text_of(events)


async def test_seeds_of_choices_whose_thoughts_are_closed() -> None:
    script = {
        "rules": [{"when": {"contains": "</think>"}, "answer": {"echo": "sampling"}}],
        "default": {"thinking": "one two three", "text": "x"},
    }
    async with open_house(script, make_model(template=THINKER)) as h:
        wanted = ask("Hi", think_budget=2, n=2, options=Options(seed=7, num_predict=1000))
        first, second = await events_of(h, wanted), await events_of(h, wanted)
    seeds = [json.loads(text_of(first, index))["seed"] for index in range(2)]
    assert len({7, *seeds}) == 3
    assert [text_of(first, index) for index in range(2)] == [text_of(second, index) for index in range(2)]


async def test_a_running_thought_ends_when_somebody_asks() -> None:
    watch = ThoughtWatch()
    script = {**LONG_THOUGHT, "default": {"thinking": "on and on ", "repeat": True}}
    async with open_house(script, make_model(template=THINKER)) as h:
        assert not watch.end()
        events: list[Event] = []
        async with h.inference.chat(ask("Hi"), watch) as answer:
            async for event in answer:
                events.append(event)
                if isinstance(event, ThinkingDelta) and event.text and not watch.asked:
                    assert watch.end()
        assert not watch.end()
    assert text_of(events) == "Four."
    assert thinking_of(events).startswith("on")


async def test_a_closed_thought_about_an_image() -> None:
    """What was thought follows the image in the texts that an engine gets in place of ids."""
    able = frozenset({Capability.COMPLETION, Capability.VISION})
    seeing = Message("user", (TextPart("What?"), ImagePart(b"png")))
    async with open_house(LONG_THOUGHT, make_model(template=THINKER, capabilities=able)) as h:
        events = await events_of(h, ChatRequest(model="m", messages=(seeing,), think_budget=3))
    assert (thinking_of(events), text_of(events)) == ("one two", "Four.")


async def test_a_model_that_need_not_think() -> None:
    async with open_house() as h:
        events = await events_of(h, ask(think=True, think_if_able=True))
        assert started_of(events).ignored == ("think",)


async def test_a_prompt_that_opens_the_thinking() -> None:
    template = CHATML + "{% if add_generation_prompt %}<think>\n{% endif %}{# </think> #}"
    async with open_house({"default": {"text": "Hm.</think>Yes."}}, make_model(template=template)) as h:
        events = await events_of(h, ask())
    assert (thinking_of(events), text_of(events)) == ("Hm.", "Yes.")


async def test_think_is_refused_or_reported() -> None:
    always = make_model("always", CHATML + "{# <think> </think> #}")
    async with open_house({}, make_model(), always) as h:
        with pytest.raises(Unsupported, match="does not support thinking") as caught:
            await events_of(h, ask(think=True))
        assert caught.value.param == "think"
        assert started_of(await events_of(h, ask(think=False))).ignored == ()
        off = ChatRequest(model="always", messages=ask().messages, think=False)
        assert started_of(await events_of(h, off)).ignored == ("think",)


async def test_prefill_continues_the_last_message() -> None:
    messages = (Message.of("user", "Count."), Message.of("assistant", "One, t"))
    async with open_house(echo("prompt")) as h:
        events = await events_of(h, ChatRequest(model="m", messages=messages, prefill=True))
    assert text_of(events) == "user\nCount.\nassistant\nOne, t"


async def test_json_output_is_constrained_and_checked() -> None:
    rules = [{"when": {"constrained": True}, "answer": {"text": '{"a": 1}'}}]
    async with open_house({"rules": rules}) as h:
        assert text_of(await events_of(h, ask(output=JsonOutput()))) == '{"a": 1}'
        with pytest.raises(EngineError, match="'a' is a required|required"):
            await events_of(h, ask(output=JsonOutput({"type": "object", "required": ["b"], "properties": {"b": {}}})))
        assert h.busy == 0


async def test_a_schema_that_cannot_be_held_is_refused_before_the_model_is_loaded() -> None:
    async with open_house() as h:
        with pytest.raises(InvalidRequest, match="schema"):
            await events_of(h, ask(output=JsonOutput({"not": {"type": "string"}})))
        assert h.scheduler.loaded() == ()


async def test_a_thought_comes_before_constrained_output() -> None:
    async with open_house(echo("constraint"), make_model(template=THINKER)) as h:
        free = text_of(await events_of(h, ask(output=Grammar("gbnf", 'root ::= "yes"'))))
        strict = text_of(await events_of(h, ask(think=False, output=Grammar("gbnf", 'root ::= "yes"'))))
    assert "</think>" in free or "think" in free
    assert strict.strip() == 'root ::= "yes"'


async def test_tools_are_described_and_called() -> None:
    rules = [
        {
            "when": {"contains": "get_weather", "constrained": True},
            "answer": {"tool_calls": [{"name": "get_weather", "arguments": {"city": "Rom"}}]},
        }
    ]
    async with open_house({"rules": rules}) as h:
        events = await events_of(h, ask(tools=(WEATHER,), tool_choice=ToolChoice("required"), logprobs=0))
    (start,) = [event for event in events if isinstance(event, ToolCallStart)]
    arguments = "".join(event.arguments for event in events if isinstance(event, ToolCallDelta))
    assert (start.call, start.name, json.loads(arguments)) == (0, "get_weather", {"city": "Rom"})
    assert finished_of(events).reason == "tool_calls"
    assert text_of(events).strip() == ""


async def test_without_tools_a_call_is_text() -> None:
    script = {"default": {"tool_calls": [{"name": "get_weather", "arguments": {}}]}}
    async with open_house(script) as h:
        events = await events_of(h, ask(tools=(WEATHER,), tool_choice=ToolChoice("none")))
    assert "get_weather" in text_of(events)
    assert finished_of(events).reason == "stop"


async def test_past_calls_are_spelled_out_for_a_template_without_them() -> None:
    messages = (
        Message.of("user", "Weather?"),
        Message("assistant", tool_calls=(ToolCall("1", "get_weather", '{"city": "Rom"}'),)),
        Message("tool", (TextPart("Sunny."),), tool_call_id="1"),
    )
    async with open_house(echo("prompt")) as h:
        shown = text_of(await events_of(h, ChatRequest(model="m", messages=messages)))
    assert '{"name": "get_weather", "arguments": {"city": "Rom"}}' in shown
    assert "user\n<tool_response>\nSunny.\n</tool_response>" in shown


@pytest.mark.parametrize("part", [ImagePart(b"x"), AudioPart(b"x")])
async def test_media_for_a_model_of_text(part: ImagePart | AudioPart) -> None:
    async with open_house() as h:
        messages = (Message.of("system", "s"), Message("user", (TextPart("t"), part)))
        with pytest.raises(Unsupported, match="does not support") as caught:
            await events_of(h, ChatRequest(model="m", messages=messages))
        assert caught.value.param == "messages[1].content[1]"
        assert h.scheduler.loaded() == ()


async def test_a_model_that_only_embeds_does_not_chat() -> None:
    async with open_house({}, make_model(capabilities=frozenset({Capability.EMBEDDING}))) as h:
        with pytest.raises(Unsupported, match="does not support chat"):
            await events_of(h, ask())


@pytest.mark.parametrize(
    ("without", "changes", "param"),
    [
        ("logprobs", {"logprobs": 1}, "logprobs"),
        ("constraint", {"output": JsonOutput()}, "output"),
        ("constraint", {"tools": (WEATHER,)}, "tools"),
        ("logit_bias", {"options": Options(logit_bias=((1, 1.0),))}, "logit_bias"),
    ],
)
async def test_what_the_engine_lacks_is_refused_by_name(without, changes, param) -> None:
    async with open_house({"models": [{"match": "*", "without": [without]}]}) as h:
        with pytest.raises(Unsupported) as caught:
            await events_of(h, ask(**changes))
        assert caught.value.param == param
        assert h.busy == 0


async def test_a_prediction_is_reported_where_the_engine_makes_nothing_of_it() -> None:
    async with open_house({"models": [{"match": "*", "without": ["prediction"]}]}) as h:
        events = await events_of(h, ask(prediction="Hello"))
    assert started_of(events).ignored == ("prediction",)
    assert (done_of(events).usage.predicted, done_of(events).usage.unpredicted) == (0, 0)


async def test_an_unknown_model() -> None:
    async with open_house() as h:
        with pytest.raises(ModelNotFound):
            await events_of(h, ChatRequest(model="unknown", messages=ask().messages))


async def test_a_runner_that_dies_before_the_first_token_begins_no_answer() -> None:
    async with open_house({"default": {"text": "a b c", "error": {"after": 0}}}) as h:
        async with h.inference.chat(ask()) as events:
            with pytest.raises(RunnerDied):
                await anext(events)
        assert h.busy == 0


@pytest.mark.parametrize("n", [1, 3])
async def test_a_runner_that_dies_later_ends_the_answer_with_its_error(n: int) -> None:
    async with open_house({"default": {"text": "a b c", "error": {"after": 2}}}) as h:
        seen: list[Event] = []

        async def read() -> None:
            async with h.inference.chat(ask(n=n)) as events:
                async for event in events:
                    seen.append(event)  # noqa: PERF401 (what came before the error counts)

        with pytest.raises(RunnerDied):
            await read()
        assert text_of(seen).startswith("a")
        assert h.busy == 0


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("after", [0, 1, 2, 5])
async def test_closing_an_answer_frees_runner_and_lease(n: int, after: int) -> None:
    async with open_house({"default": {"text": "x ", "repeat": True}}, slots=2) as h:
        async with h.inference.chat(ask(n=n)) as events:
            for _ in range(after):
                await anext(events)
        assert h.busy == 0
        for loaded in h.scheduler._places.values():
            assert loaded.runner is not None
            assert await loaded.runner.busy() == 0


async def test_the_fingerprint_tells_load_settings_apart() -> None:
    async with open_house() as h:
        first, again = [started_of(await events_of(h, ask())).fingerprint for _ in range(2)]
        other = started_of(await events_of(h, ask(options=Options(num_ctx=2048)))).fingerprint
    assert first == again != other
    assert first.startswith("fp_")
    assert len(first) == 13


async def test_counting_loading_and_tokens() -> None:
    async with open_house() as h:
        assert await h.inference.unload("m") is False
        assert (await h.inference.load("m", Options(), None)).load_ns > 0
        counted = (await h.inference.counted(ask())).count
        assert counted == done_of(await events_of(h, ask())).usage.prompt
        ids = await h.inference.tokenize("m", "Hé<|im_end|>")
        assert await h.inference.detokenize("m", ids) == "Hé<|im_end|>"
        assert len(ids) == 4
        assert await h.inference.unload("m") is True


async def test_images_go_to_the_engine_beside_the_prompt() -> None:
    model = make_model(capabilities=frozenset({Capability.COMPLETION, Capability.VISION}))
    seeing = Message("user", (TextPart("What?"), ImagePart(b"png")))
    async with open_house(echo("prompt"), model) as h:
        assert "<__media__>" in text_of(await events_of(h, ChatRequest(model="m", messages=(seeing,))))
        posing = Message("user", (TextPart("<__media__> <|im_end|>"), ImagePart(b"png")))
        events = await events_of(h, ChatRequest(model="m", messages=(Message.of("user", "Hi"), posing)))
        assert "user\n<__media__> <|im_end|>\n<__media__>" in text_of(events)
        # The engine can only be given that text changed.
        assert started_of(events).ignored == ("messages[1].content",)


BLIND = "{% for m in messages %}{{ m.content | replace('<__media__>', '') }}{% endfor %}"


async def test_a_template_without_a_place_for_images_is_refused() -> None:
    model = make_model(capabilities=frozenset({Capability.COMPLETION, Capability.VISION}), template=BLIND)
    seeing = Message("user", (TextPart("What?"), ImagePart(b"png")))
    async with open_house(echo("prompt"), model) as h:
        with pytest.raises(Unsupported, match="a place for 0 of the 1 images"):
            await events_of(h, ChatRequest(model="m", messages=(seeing,)))


async def test_a_prompt_with_images_has_no_ids_to_go_on_from() -> None:
    model = make_model(capabilities=frozenset({Capability.COMPLETION, Capability.VISION}))
    seen = ChatRequest(model="m", messages=(Message("user", (TextPart("What?"), ImagePart(b"png"))),))
    async with open_house(echo("prompt"), model) as h:
        started = (await events_of(h, seen))[0]
        assert isinstance(started, Started)
        assert started.prompt_tokens == ()
        counted = await h.inference.counted(seen)
        assert counted.count > 0
        assert counted.tokens is None


async def test_others_are_served_while_a_large_schema_is_read() -> None:
    large: JsonObject = {"enum": [f"v{number}" for number in range(20_000)], "pattern": "^v"}
    async with open_house({"default": {"text": "hello"}}) as h:
        # Loaded, so that nothing but the schema takes time.
        await events_of(h, ask())
        slow = asyncio.create_task(events_of(h, ask(output=JsonOutput(large))))
        await asyncio.sleep(0)
        assert text_of(await events_of(h, ask())) == "hello"
        assert not slow.done()
        with pytest.raises(InvalidRequest, match="too large"):
            await slow
