"""Responses without memory: the object, the events of a stream, everything that may come in."""

from __future__ import annotations

import base64
import json
from typing import Any, get_args

import pytest
from openai.types.responses import Response, ToolParam
from openai.types.responses.response_input_item_param import ResponseInputItemParam

from fakes.projectors import plain, wav
from fakes.response_events import check_events, read_events

WEATHER = {
    "type": "function",
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
NOTE = {"type": "custom", "name": "note"}
CALL = {"type": "function_call", "call_id": "call_1", "name": "get_weather", "arguments": '{"city": "Oslo"}'}
RESULT = {"type": "function_call_output", "call_id": "call_1", "output": "rain"}


def respond(server: Any, asked: Any = "Hi", *, model: str = "tiny", **fields: Any) -> Any:
    return server.post("/v1/responses", {"model": model, "input": asked, "store": False, **fields})


def whole(server: Any, asked: Any = "Hi", **fields: Any) -> dict[str, Any]:
    answer = respond(server, asked, **fields)
    assert answer.status == 200, answer.body
    data: dict[str, Any] = answer.json
    return data


def events(server: Any, asked: Any = "Hi", **fields: Any) -> list[dict[str, Any]]:
    answer = respond(server, asked, stream=True, **fields)
    assert answer.status == 200, answer.body
    return read_events(answer.body)


def text(response: dict[str, Any]) -> str:
    return "".join(part["text"] for item in response["output"] if item["type"] == "message" for part in item["content"])


# ---------------------------------------------------------------------------------------------------------- the object


def test_every_key_is_there(server):
    response = whole(server)
    assert response.keys() >= set(Response.model_fields)
    assert Response.model_validate(response, strict=False).output_text == "Hello there, friend."
    assert (response["status"], response["object"], response["error"]) == ("completed", "response", None)
    assert response["usage"]["total_tokens"] == response["usage"]["input_tokens"] + response["usage"]["output_tokens"]
    assert response["completed_at"] >= response["created_at"]


def test_it_repeats_what_was_asked(server):
    asked: dict[str, Any] = {
        "instructions": "Be brief.",
        "max_output_tokens": 100,
        "temperature": 0.5,
        "top_p": 0.25,
        "truncation": "auto",
        "metadata": {"a": "b"},
        "prompt_cache_key": "key",
        "user": "me",
        "safety_identifier": "me",
    }
    response = whole(server, **asked)
    assert {name: response[name] for name in asked} == asked
    assert response["text"] == {"format": {"type": "text"}, "verbosity": "medium"}


def test_unsaid_options_are_told_as_they_count(server):
    response = whole(server)
    assert (response["temperature"], response["top_p"], response["presence_penalty"]) == (0.8, 0.9, 0.0)


def test_tools_come_back_whole(server):
    named = {"type": "function", "name": "get_weather"}
    response = whole(server, "CALL", model="tools", tools=[WEATHER, NOTE], tool_choice=named)
    assert response["tools"][0] == {"description": None, "strict": True, **WEATHER}
    assert response["tools"][1] == {"format": {"type": "text"}, **NOTE}
    assert response["tool_choice"] == named


def test_a_call_is_an_item(server):
    [item] = whole(server, "CALL", model="tools", tools=[WEATHER])["output"]
    assert (item["type"], item["name"], item["status"]) == ("function_call", "get_weather", "completed")
    assert json.loads(item["arguments"]) == {"city": "Paris"}
    assert item["call_id"].startswith("call_")
    assert item["id"].startswith("fc_")


def test_a_thought_is_an_item(server):
    thought, said = whole(server, "THINK", model="thinker")["output"]
    assert (thought["type"], thought["summary"]) == ("reasoning", [])
    assert thought["content"] == [{"type": "reasoning_text", "text": "Let me see."}]
    assert said["content"][0]["text"] == "Forty-two."


def test_a_summary_is_asked_for(server):
    thought, _ = whole(server, "THINK", model="thinker", reasoning={"summary": "auto"})["output"]
    assert thought["summary"] == [{"type": "summary_text", "text": "Let me see."}]
    assert "content" not in thought


def test_a_seal_is_asked_for_and_opened_again(server):
    asked = [{"role": "user", "content": "THINK"}]
    first = whole(server, asked, model="thinker", include=["reasoning.encrypted_content"])
    thought, said = first["output"]
    assert "Let me see." not in thought["encrypted_content"]
    kept = {"type": "reasoning", "id": thought["id"], "summary": [], "encrypted_content": thought["encrypted_content"]}
    again = [*asked, kept, said, {"role": "user", "content": "PROMPT"}]
    assert "<think>\nLet me see.\n</think>" in prompt(server, again, model="thinker")


def test_another_servers_seal_is_reported(server):
    answer = respond(server, [{"type": "reasoning", "summary": [], "encrypted_content": "gAAAA"}, user("PROMPT")])
    assert answer.headers["x-puna-ignored"] == "input[0].encrypted_content"


def test_a_cut_answer_is_incomplete(server):
    response = whole(server, max_output_tokens=2)
    assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert response["output"][0]["status"] == "incomplete"
    assert response["completed_at"] is None


def test_fewer_tokens_than_openai_takes_are_told(server):
    assert respond(server, max_output_tokens=2).headers["x-puna-nonstandard"] == "max_output_tokens"
    assert "x-puna-nonstandard" not in respond(server, max_output_tokens=16).headers


def test_an_answer_of_nothing_is_a_message_of_nothing(server):
    [item] = whole(server, "EMPTY")["output"]
    assert item["content"][0]["text"] == ""


def test_log_probabilities_with_their_texts(server):
    parts = whole(server, top_logprobs=2)["output"][0]["content"][0]
    assert [entry["token"] for entry in parts["logprobs"]] == ["Hello", " there", ",", " friend", "."]
    assert all(len(entry["top_logprobs"]) == 2 for entry in parts["logprobs"])


SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    "shape",
    [{"type": "json_object"}, {"type": "json_schema", "name": "a", "schema": SCHEMA, "strict": True}],
)
def test_a_format_is_enforced(server, shape):
    """By a grammar while generating, which this engine only repeats, and at the end."""
    assert whole(server, "JSON", text={"format": shape})["text"]["format"] == shape
    assert respond(server, "Hi", text={"format": shape}).error["code"] == "engine_error"


def test_a_strict_schema_keeps_the_rules(server):
    loose = {"type": "json_schema", "name": "a", "schema": {"type": "object"}, "strict": True}
    error = respond(server, text={"format": loose}).error
    assert (error["param"], error["code"]) == ("text.format.schema", "invalid_schema")


# ------------------------------------------------------------------------------------------------------------- events


@pytest.mark.parametrize(
    ("asked", "fields", "types"),
    [
        ("Hi", {}, ["message"]),
        ("Hi", {"top_logprobs": 1, "include": ["message.output_text.logprobs"]}, ["message"]),
        ("Hi", {"stream_options": {"include_obfuscation": True}}, ["message"]),
        ("EMPTY", {}, ["message"]),
        ("EMOJI", {}, ["message"]),
        ("Hi", {"max_output_tokens": 2}, ["message"]),
        ("THINK", {"model": "thinker"}, ["reasoning", "message"]),
        ("THINK", {"model": "thinker", "reasoning": {"summary": "detailed"}}, ["reasoning", "message"]),
        ("THINK", {"model": "thinker", "include": ["reasoning.encrypted_content"]}, ["reasoning", "message"]),
        ("THINK", {"model": "thinker", "max_output_tokens": 4}, ["reasoning"]),
        ("CALL", {"model": "tools", "tools": [WEATHER]}, ["function_call"]),
        ("CALL TWO", {"model": "tools", "tools": [WEATHER]}, ["function_call", "function_call"]),
        ("CALL", {"model": "tools", "tools": [WEATHER], "max_output_tokens": 16}, None),
        ("DIE LATE", {}, ["message"]),
    ],
)
def test_events_are_in_the_one_right_order(serving, server, asked, fields, types):
    response = check_events(events(server, asked, **fields))
    if types is not None:
        assert [item["type"] for item in response["output"]] == types
    if asked == "DIE LATE":
        assert (response["status"], response["error"]["code"]) == ("failed", "server_error")
        assert "scripted death" in response["error"]["message"]
        assert response["output"][0]["status"] == "incomplete"
        return
    same = whole(server, asked, **{name: value for name, value in fields.items() if name != "stream_options"})
    assert _timeless(response) == _timeless(same)


def _timeless(response: dict[str, Any]) -> dict[str, Any]:
    """What two answers to the same request have in common."""
    kept = {
        name: value for name, value in response.items() if name not in {"id", "created_at", "completed_at", "usage"}
    }
    kept["output"] = [
        {name: value for name, value in item.items() if name not in {"id", "call_id"}} for item in response["output"]
    ]
    return kept


REQUIRED = {"model": "m", "parallel_tool_calls": True, "tool_choice": "auto", "tools": []}


def test_a_custom_call_streams_its_input():
    """Over the events alone: the scripted engine's templates call functions."""
    from puna.server.responses.ids import ResponseIds
    from puna.server.responses.objects import Draft
    from puna.server.responses.telling import Manner, Telling
    from puna.types import Done, Finished, Started, TextDelta, Timings, ToolCallDelta, ToolCallStart, Usage

    draft = Draft("resp_1", 1, {})
    telling = Telling(draft, ResponseIds(), Manner())
    told = telling.begin()
    for event in (
        Started("m", "e", "f", True, 10),
        TextDelta(0, "First "),
        TextDelta(0, "this."),
        ToolCallStart(0, 0, "call_a", "note", "custom"),
        ToolCallDelta(0, 0, "some "),
        ToolCallDelta(0, 0, "text"),
        TextDelta(0, "After."),
        Finished(0, "tool_calls"),
        Done(Usage(), Timings()),
    ):
        told += telling.tell(event)
    told.append(telling.end())
    for event in told:
        if "response" in event:
            event["response"] = {**REQUIRED, **event["response"]}  # type: ignore[dict-item]
    response = check_events(json.loads(json.dumps(told)))
    assert [item["type"] for item in response["output"]] == ["message", "custom_tool_call", "message"]
    assert response["output"][1]["input"] == "some text"


def test_obfuscated_deltas_are_of_like_lengths(server):
    deltas = [event for event in events(server, stream_options={"include_obfuscation": True}) if "delta" in event]
    assert {(len(event["delta"]) + len(event["obfuscation"])) % 32 for event in deltas} == {0}
    assert not [event for event in events(server) if "obfuscation" in event]


def test_a_fault_before_the_first_event_is_a_status(server):
    answer = respond(server, model="nope", stream=True)
    assert (answer.status, answer.error["code"]) == (404, "model_not_found")
    assert respond(server, "DIE FIRST").status == 500


# ------------------------------------------------------------------------------------------------------- what comes in


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def prompt(server: Any, asked: Any, **fields: Any) -> str:
    return text(whole(server, asked, **fields))


def of_chat(server: Any, model: str, messages: list[dict[str, Any]], **fields: Any) -> str:
    content: str = server.post("/v1/chat/completions", {"model": model, "messages": messages, **fields}).json[
        "choices"
    ][0]["message"]["content"]
    return content


def test_a_conversation_is_the_prompt_that_chat_makes_of_it(server):
    """Calls, results, texts and thoughts as items are the same as in messages."""
    items = [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Rules."}]},
        user("Weather?"),
        {"type": "message", "role": "assistant", "id": "msg_1", "status": "completed",
         "content": [{"type": "output_text", "text": "I look.", "annotations": [], "logprobs": []}]},
        CALL,
        RESULT,
        {"role": "assistant", "content": "Rain."},
        user([{"type": "input_text", "text": "PROMPT"}]),
    ]  # fmt: skip
    messages = [
        {"role": "developer", "content": "Rules."},
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "I look.", "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}}
        ]},
        {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
        {"role": "assistant", "content": "Rain."},
        {"role": "user", "content": "PROMPT"},
    ]  # fmt: skip
    function = {"type": "function", "function": {key: WEATHER[key] for key in ("name", "parameters")}}
    assert prompt(server, items, model="tools", tools=[WEATHER]) == of_chat(server, "tools", messages, tools=[function])


def test_its_own_output_is_taken_back(server):
    first = whole(server, "CALL TWO", model="tools", tools=[WEATHER])
    results = [
        {"type": "function_call_output", "call_id": item["call_id"], "output": "RESULT"} for item in first["output"]
    ]
    again = [user("CALL TWO"), *first["output"], *results]
    assert text(whole(server, again, model="tools", tools=[WEATHER])) == "It is sunny."


def test_the_thought_goes_with_the_turn_it_was_of(server):
    thought, said = whole(server, "THINK", model="thinker")["output"]
    shown = prompt(server, [user("THINK"), thought, said, user("PROMPT")], model="thinker")
    assert "assistant\n<think>\nLet me see.\n</think>\n\nForty-two." in shown


def test_custom_calls_and_their_outputs(server):
    items = [
        user("PROMPT"),
        {"type": "custom_tool_call", "call_id": "c", "name": "note", "input": "free text"},
        {"type": "custom_tool_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "noted"}]},
    ]
    # The prompt comes back as the answer, so the call in it is one of the answer's.
    response = check_events(events(server, items, model="tools", tools=[NOTE]))
    [made] = [item for item in response["output"] if item["type"] == "custom_tool_call"]
    assert (made["name"], made["input"]) == ("note", "free text")
    assert "noted" in text(response)


def test_an_output_without_its_call_is_refused(server):
    error = respond(server, [user("Hi"), RESULT]).error
    assert error["param"] == "input[1].call_id"
    assert "No tool call found" in error["message"]


def test_a_reference_to_an_item_of_the_same_request(server):
    items = [{"id": "mine", **user("PROMPT")}, {"type": "item_reference", "id": "mine"}]
    assert prompt(server, items).count("PROMPT") == 2
    error = respond(server, [{"id": "nowhere"}])
    assert (error.status, error.error["param"]) == (404, "input[0].id")


def data_url(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def test_images_sounds_and_files(server):
    image = {"type": "input_image", "image_url": data_url(plain((200, 0, 0), 4, 4), "image/png"), "detail": "auto"}
    assert respond(server, [user([image])], model="vision").status == 200
    assert respond(server, [user([image])]).error["param"] == "input[0].content[0]"
    file = {"type": "input_file", "filename": "a.txt", "file_data": data_url(b"PROMPT of a file", "text/plain")}
    assert "a.txt:\nPROMPT of a file" in prompt(server, [user([file])])
    sound = {
        "type": "input_audio",
        "input_audio": {"data": base64.b64encode(wav(1.0, 16000)).decode(), "format": "wav"},
    }
    assert respond(server, [user([sound])]).error["code"] == "unsupported_value"
    assert respond(server, [{"role": "system", "content": [image]}]).error["param"] == "input[0].content[0]"
    output = {**RESULT, "output": [{"type": "input_image", "image_url": "http://127.0.0.1:1/x.png"}]}
    refused = respond(server, [user("Hi"), CALL, output], model="vision").error
    assert refused["param"] == "input[2].output[0].image_url"


@pytest.mark.parametrize(
    ("field", "value", "param"),
    [
        ("input", [{"type": "input_file", "file_id": "file-1"}], "input[0]"),
        ("input", [user([{"type": "input_file", "file_id": "file-1"}])], "input[0].content[0].file_id"),
        ("input", [user([{"type": "input_file", "file_url": "ftp://x"}])], "input[0].content[0].file_url"),
        ("input", [user([{"type": "input_file", "file_url": "http://127.0.0.1:1"}])], "input[0].content[0].file_url"),
        ("input", [user([{"type": "input_image"}])], "input[0].content[0].image_url"),
        ("input", [user([{"type": "nonsense"}])], "input[0].content[0].type"),
        ("input", [{"role": "user"}], "input[0].content"),
        ("input", [{"type": "nonsense"}], "input[0]"),
        ("input", [], "input"),
        ("input", None, "input"),
        ("tools", [WEATHER, WEATHER], "tools"),
        ("tools", [{**WEATHER, "strict": True}], "tools[0].parameters"),
        ("tools", [{"type": "function"}], "tools[0].name"),
        ("tool_choice", "required", "tool_choice"),
        ("tool_choice", {"type": "function", "name": "other"}, "tool_choice"),
        ("tool_choice", {"type": "mcp", "server_label": "x"}, "tool_choice.type"),
        ("include", ["everything"], "include[0]"),
        ("conversation", "conv_1", None),
        ("previous_response_id", "resp_1", "previous_response_id"),
        ("stream_options", {}, "stream_options"),
        ("background", True, "background"),
        ("reasoning", {"effort": "enormous"}, "reasoning.effort"),
        ("text", {"format": {"type": "json_schema", "name": "a", "schema": {"type": 1}}}, "text.format"),
        ("text", {"format": {"type": "xml"}}, "text.format.type"),
    ],
)
def test_what_is_wrong_names_its_place(server, field, value, param):
    answer = respond(server, **{field: value}) if field != "input" else respond(server, value)
    assert answer.status in {400, 404}, answer.body
    assert (answer.error["param"] or "").startswith(param or "")
    assert answer.error["type"] == "invalid_request_error"


def published(union: Any) -> set[str]:
    """The types that the members of a union of OpenAI's package may have."""
    found: set[str] = set()
    for member in get_args(union):
        hint = member.__annotations__.get("type") if hasattr(member, "__annotations__") else None
        for name in _literals(hint):
            found.add(name)
    return found


def _literals(hint: Any) -> list[str]:
    text_ = hint.__forward_arg__ if hasattr(hint, "__forward_arg__") else str(hint)
    return [part for part in text_.replace('"', "'").split("'")[1::2] if part.islower()]


HOSTED_ITEM = {"id": "x", "call_id": "x"}


@pytest.mark.parametrize("type_", sorted(published(ToolParam) - {"function", "custom", "namespace"}))
def test_hosted_tools_are_refused_by_name(server, type_):
    error = respond(server, tools=[{"type": type_}]).error
    assert (error["code"], error["param"]) == ("unsupported_value", "tools[0].type")
    assert f"'{type_}'" in error["message"]


OWN_ITEMS = {
    "message", "function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output", "reasoning",
    "item_reference", "compaction",
}  # fmt: skip


@pytest.mark.parametrize("type_", sorted(published(ResponseInputItemParam) - OWN_ITEMS))
def test_items_of_hosted_tools_are_refused_by_name(server, type_):
    error = respond(server, [user("Hi"), {"type": type_, **HOSTED_ITEM}]).error
    assert (error["code"], error["param"]) == ("unsupported_value", "input[1].type")
    assert f"'{type_}'" in error["message"]


def test_what_is_ignored_inside_is_named(server):
    call = {**CALL, "arguments": '{"city": "Os'}
    answer = respond(
        server, [user("Hi"), call, RESULT, {**user("x"), "phase": "commentary", "extra": 1}], model="tools"
    )
    assert set(answer.headers["x-puna-ignored"].split(", ")) == {
        "input[1].arguments", "input[3].phase", "input[3].extra",
    }  # fmt: skip


def test_a_prompt_that_does_not_fit_is_refused_before_all(server):
    error = respond(server, "word " * 2000).error
    assert (error["code"], error["param"]) == ("context_length_exceeded", "input")


def test_allowed_tools_limit_the_calls(server):
    other = {**WEATHER, "name": "other"}
    choice = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "get_weather"}]}
    response = whole(server, "CALL", model="tools", tools=[WEATHER, other], tool_choice=choice)
    assert response["output"][0]["name"] == "get_weather"
    assert response["tool_choice"] == choice


def test_tools_in_a_namespace(server):
    """The model knows them by one name; requests and answers by two."""
    space = {"type": "namespace", "name": "sky", "description": "About the sky.", "tools": [WEATHER]}
    shown = text(whole(server, "PROMPT", model="tools", tools=[space]))
    assert shown.index("sky.get_weather") < shown.index("About the sky.")
    past = [user("PROMPT"), {**CALL, "namespace": "sky"}, RESULT]
    # The prompt comes back as the answer, so the call in it is one of the answer's.
    [made] = [item for item in whole(server, past, model="tools", tools=[space])["output"] if "call_id" in item]
    assert (made["namespace"], made["name"]) == ("sky", "get_weather")
    broken = {**space, "tools": [{**WEATHER, "strict": True}]}
    assert respond(server, tools=[broken]).error["param"] == "tools[0].tools[0].parameters"


def test_input_tokens_are_those_of_the_answer(server):
    asked = {"model": "tools", "input": "CALL", "tools": [WEATHER], "instructions": "Rules."}
    count = server.post("/v1/responses/input_tokens", asked).json
    assert count["object"] == "response.input_tokens"
    assert count["input_tokens"] == server.post("/v1/responses", asked).json["usage"]["input_tokens"]


def test_a_summary_that_is_cut_is_told(serving):
    script = {
        "rules": [{"when": {"contains": "Aurora"}, "answer": {"text": "It sailed."}}],
        "default": {"text": "on and ", "repeat": True},
    }
    with serving(script) as own:
        whole, cut = (own.post("/v1/responses/compact", {"model": "tiny", "input": said}) for said in ("Aurora", "Hi"))
    assert [answer.status for answer in (whole, cut)] == [200, 200]
    assert [answer.headers.get("x-puna-finish-reason") for answer in (whole, cut)] == [None, "length"]
    assert whole.json["usage"]["output_tokens"] < cut.json["usage"]["output_tokens"] == 1024
