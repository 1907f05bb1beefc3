"""Each row of the contract, proved on the running server: honoured with an effect, refused, or reported."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import annotated_types
import pytest
from openai.types import DecisionCreateParams, EmbeddingCreateParams
from openai.types.chat import (
    ChatCompletionAssistantMessageParam,
    ChatCompletionContentPartImageParam,
    ChatCompletionContentPartInputAudioParam,
    ChatCompletionContentPartTextParam,
    ChatCompletionStreamOptionsParam,
)
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming
from openai.types.completion_create_params import CompletionCreateParamsStreaming as LegacyParamsStreaming
from openai.types.conversations import ConversationCreateParams, ConversationUpdateParams
from openai.types.decision_create_params import (
    QuestionQuestionParamChoice,
    QuestionQuestionParamPredicate,
    QuestionQuestionParamScore,
)
from openai.types.responses import (
    CustomToolParam,
    EasyInputMessageParam,
    FunctionToolParam,
    InputTokenCountParams,
    ResponseCompactionItemParamParam,
    ResponseCompactParams,
    ResponseCustomToolCallOutputParam,
    ResponseCustomToolCallParam,
    ResponseFormatTextJSONSchemaConfigParam,
    ResponseFunctionToolCallParam,
    ResponseInputAudioParam,
    ResponseInputFileParam,
    ResponseInputImageParam,
    ResponseInputTextParam,
    ResponseOutputMessageParam,
    ResponseOutputTextParam,
    ResponseReasoningItemParam,
    ResponseTextConfigParam,
    ToolChoiceAllowedParam,
    ToolChoiceFunctionParam,
)
from openai.types.responses.response_create_params import ResponseCreateParamsStreaming
from openai.types.responses.response_create_params import StreamOptions as ResponseStreamOptionsParam
from openai.types.responses.response_input_item_param import FunctionCallOutput
from openai.types.responses.response_input_item_param import ItemReference as ItemReferenceParam
from openai.types.shared_params import Reasoning

from puna.server.contract.reference import nested_shapes
from puna.server.contract.shapes import Honoured, Refused, Reported, Shape, ShapeField, shape_fields
from puna.server.openai.bodies import BODIES as OWN_BODIES
from puna.server.openai.bodies import (
    ChatCompletionBody,
    CompletionBody,
    DecisionBody,
    DetokenizeBody,
    EmbeddingBody,
    TokenizeBody,
)
from puna.server.openai.decisions import ChoiceQuestion, PredicateQuestion, ScoreQuestion
from puna.server.openai.messages import AssistantMessage
from puna.server.openai.options import StreamOptions
from puna.server.openai.parts import AudioContentPart, ImageContentPart, TextContentPart
from puna.server.openai.rerank import RerankBody, ScoreBody, TextsRankBody
from puna.server.responses import items, pieces, tools
from puna.server.responses.bodies import BODIES as RESPONSES_BODIES
from puna.server.responses.bodies import (
    CompactBody,
    ConversationBody,
    ConversationItemsBody,
    ConversationUpdateBody,
    FlatSchemaFormat,
    InputTokensBody,
    ReasoningSettings,
    ResponseBody,
    ResponseStreamOptions,
    TextSettings,
)

BODIES = (*OWN_BODIES, *RESPONSES_BODIES)
PATHS: dict[type[Shape], str] = {shape: (shape.__doc__ or "").removeprefix("POST ") for shape in BODIES}
BASE: dict[type[Shape], dict[str, Any]] = {
    ChatCompletionBody: {"model": "tiny", "messages": [{"role": "user", "content": "SAMPLING"}]},
    CompletionBody: {"model": "tiny", "prompt": "SAMPLING", "max_tokens": 1000},
    EmbeddingBody: {"model": "embedder", "input": "text"},
    DecisionBody: {"model": "tiny", "input": "x", "questions": [{"type": "predicate", "instructions": "Is it?"}]},
    RerankBody: {"model": "ranker", "query": "a query", "documents": ["one", "two"]},
    TextsRankBody: {"model": "ranker", "query": "a query", "texts": ["one", "two"]},
    ScoreBody: {"model": "ranker", "text_1": "a query", "text_2": ["one", "two"]},
    TokenizeBody: {"model": "tiny", "prompt": "text"},
    DetokenizeBody: {"model": "tiny", "tokens": [104, 105]},
    ResponseBody: {"model": "tiny", "input": "SAMPLING"},
    InputTokensBody: {"model": "tiny", "input": "text"},
    CompactBody: {"model": "tiny", "input": "text"},
    ConversationBody: {},
    ConversationUpdateBody: {"metadata": {}},
    ConversationItemsBody: {"items": [{"role": "user", "content": "hi"}]},
}
FLAT = {"type": "function", "name": "get_weather", "parameters": {"type": "object"}}
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}
SCHEMA = {"type": "object"}


@dataclass(frozen=True)
class Effect:
    """A value of a field that does something, what must be sent beside it, and at least one way to see that it did.

    `setting`: the engine's settings say this. `shows`: the answer shows it. `loaded`: what `/api/ps` then says of the
    model shows it. `status`: what the answer has.
    """

    value: Any
    beside: dict[str, Any] | None = None
    setting: dict[str, Any] | None = None
    shows: Callable[[Any], object] | None = None
    loaded: Callable[[dict[str, Any]], object] | None = None
    status: int = 200

    def __post_init__(self) -> None:
        if not (self.setting or self.shows or self.loaded):
            raise TypeError(f"nothing shows the effect of {self.value!r}")


def stays(seconds: float) -> Callable[[dict[str, Any]], bool]:
    """The model leaves so many seconds from now, give or take what a busy machine takes to answer."""

    def shown(model: dict[str, Any]) -> bool:
        left = datetime.fromisoformat(model["expires_at"][:26].rstrip("Z") + "+00:00") - datetime.now(timezone.utc)
        return seconds - 60 < left.total_seconds() <= seconds

    return shown


def reads(num_ctx: int) -> Callable[[dict[str, Any]], bool]:
    return lambda model: model["context_length"] == num_ctx


def unknown(answer: Any) -> bool:
    return bool(answer.error["code"] == "model_not_found")


def whole(answer: Any) -> dict[str, Any]:
    data: dict[str, Any] = answer.json
    return data


def message(answer: Any) -> dict[str, Any]:
    shown: dict[str, Any] = whole(answer)["choices"][0]["message"]
    return shown


def text(answer: Any) -> str:
    data = whole(answer)
    if "output" in data:
        return "".join(part["text"] for item in data["output"] for part in item.get("content", []))
    choice = whole(answer)["choices"][0]
    content: str = choice["message"]["content"] if "message" in choice else choice["text"]
    return content


def settings(answer: Any) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(text(answer))
    return data


def constrained(answer: Any) -> bool:
    """The engine was given a grammar; the echo of a long one may be cut."""
    return '"grammar": "' in text(answer) and '"grammar": ""' not in text(answer)


def user(content: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}], **more}


def echoes(name: str, value: object) -> Callable[[Any], bool]:
    """The object that comes back says it too."""
    return lambda answer: bool(whole(answer)[name] == value)


def stands_in(*words: str) -> Callable[[Any], bool]:
    """The prompt, which the answer repeats, has these words in this order."""

    def shown(answer: Any) -> bool:
        places = [text(answer).find(word) for word in words]
        return places == sorted(places) and places[0] >= 0

    return shown


DRAWN: dict[str, Effect] = {
    "temperature": Effect(0.25, setting={"temperature": 0.25}),
    "top_p": Effect(0.5, setting={"top_p": 0.5}),
    "frequency_penalty": Effect(-1.5, setting={"frequency_penalty": -1.5}),
    "presence_penalty": Effect(2, setting={"presence_penalty": 2.0}),
    "logit_bias": Effect({"5": -100, "7": 1.5}, setting={"logit_bias": [[5, -100.0], [7, 1.5]]}),
    "seed": Effect(42, setting={"seed": 42}),
    "stop": Effect(["temperature"], shows=lambda a: "temperature" not in text(a)),
    "stream": Effect(True, shows=lambda a: a.headers["content-type"].startswith("text/event-stream")),
    "prompt_cache_key": Effect("conversation 1", setting={"cache_key": "conversation 1"}),
    "options": Effect({"temperature": 0.125, "mirostat": 2}, setting={"temperature": 0.125, "mirostat": 2}),
    "keep_alive": Effect("10m", loaded=stays(600)),
    "num_ctx": Effect(512, loaded=reads(512)),
    "top_k": Effect(7, setting={"top_k": 7}),
    "min_p": Effect(0.5, setting={"min_p": 0.5}),
    "typical_p": Effect(0.5, setting={"typical_p": 0.5}),
    "repeat_penalty": Effect(1.5, setting={"repeat_penalty": 1.5}),
    "repetition_penalty": Effect(1.25, setting={"repeat_penalty": 1.25}),
    "repeat_last_n": Effect(-1, setting={"repeat_last_n": -1}),
    "mirostat": Effect(1, setting={"mirostat": 1}),
    "mirostat_tau": Effect(2.5, setting={"mirostat_tau": 2.5}),
    "mirostat_eta": Effect(0.5, setting={"mirostat_eta": 0.5}),
    "model": Effect("tiny", shows=lambda a: whole(a)["model"] == "tiny"),
}
SAMPLED: dict[str, Effect] = DRAWN | {
    "n": Effect(3, shows=lambda a: len(whole(a)["choices"]) == 3),
    "stream_options": Effect({"include_usage": True}, {"stream": True}, shows=lambda a: a.chunks[-1]["usage"]),
    "ignore_eos": Effect(True, {"max_tokens": 5}, shows=lambda a: whole(a)["choices"][0]["finish_reason"] == "length"),
    "grammar": Effect('root ::= "yes"', shows=constrained),
    "json_schema": Effect(SCHEMA, shows=constrained),
    "guided_json": Effect(json.dumps(SCHEMA), shows=constrained),
    "guided_regex": Effect("[a-z]+", shows=constrained),
    "guided_choice": Effect(["yes", 'n"o'], shows=constrained),
    "guided_grammar": Effect('root ::= "yes"', shows=constrained),
    "structured_outputs": Effect({"regex": "[a-z]+"}, shows=constrained),
}
ASKED: dict[str, Effect] = {
    "input": Effect([{"role": "user", "content": "PROMPT"}], shows=stands_in("PROMPT")),
    "instructions": Effect("Be brief.", {"input": "PROMPT"}, shows=stands_in("Be brief.", "PROMPT")),
    "tools": Effect([FLAT], {"input": "PROMPT", "model": "tools"}, shows=stands_in("get_weather", "PROMPT")),
    "tool_choice": Effect(
        "required",
        {"input": "CALL", "model": "tools", "tools": [FLAT]},
        shows=lambda a: whole(a)["output"][0]["name"] == "get_weather",
    ),
    "parallel_tool_calls": Effect(
        False, {"input": "CALL", "model": "tools", "tools": [FLAT]}, shows=echoes("parallel_tool_calls", False)
    ),
    "text": Effect({"format": {"type": "json_object"}}, shows=constrained),
    "reasoning": Effect(
        {"effort": "none"},
        {"input": "PROMPT", "model": "thinker"},
        shows=lambda a: text(a).endswith("<think>\n\n</think>\n\n"),
    ),
    "truncation": Effect(
        "auto",
        {"input": [{"role": role, "content": "word " * 350} for role in ("user", "assistant", "user")]},
        shows=lambda a: int(a.headers["x-puna-truncated"]) > 0,
    ),
}


def counted(answer: Any) -> int:
    tokens: int = whole(answer)["input_tokens"]
    return tokens


EFFECTS: dict[type[Shape], dict[str, Effect]] = {
    ChatCompletionBody: SAMPLED
    | {
        "messages": Effect([{"role": "user", "content": "PROMPT"}], shows=lambda a: "PROMPT" in text(a)),
        "prediction": Effect(
            {"type": "content", "content": "???????"},
            shows=lambda a: whole(a)["usage"]["completion_tokens_details"]["rejected_prediction_tokens"] == 7,
        ),
        "store": Effect(True, shows=lambda a: whole(a)["metadata"] == {}),
        "metadata": Effect({"a": "b"}, {"store": True}, shows=lambda a: whole(a)["metadata"] == {"a": "b"}),
        "max_completion_tokens": Effect(3, setting=None, shows=lambda a: whole(a)["usage"]["completion_tokens"] == 3),
        "max_tokens": Effect(3, shows=lambda a: whole(a)["usage"]["completion_tokens"] == 3),
        "logprobs": Effect(True, shows=lambda a: whole(a)["choices"][0]["logprobs"]["content"]),
        "top_logprobs": Effect(
            2,
            {"logprobs": True},
            shows=lambda a: len(whole(a)["choices"][0]["logprobs"]["content"][0]["top_logprobs"]) == 2,
        ),
        "response_format": Effect({"type": "json_object"}, shows=constrained),
        "tools": Effect([TOOL], user("PROMPT", model="tools"), shows=lambda a: "get_weather" in text(a)),
        "tool_choice": Effect(
            "required", user("CALL", model="tools", tools=[TOOL]), shows=lambda a: message(a)["tool_calls"]
        ),
        "parallel_tool_calls": Effect(
            False, user("CALL", model="tools", tools=[TOOL]), shows=lambda a: len(message(a)["tool_calls"]) == 1
        ),
        "functions": Effect(
            [TOOL["function"]], user("CALL", model="tools"), shows=lambda a: message(a)["function_call"]["name"]
        ),
        "function_call": Effect(
            {"name": "get_weather"},
            user("CALL", model="tools", functions=[TOOL["function"]]),
            shows=lambda a: message(a)["function_call"]["name"] == "get_weather",
        ),
        "reasoning_effort": Effect(
            "none", user("PROMPT", model="thinker"), shows=lambda a: text(a).endswith("<think>\n\n</think>\n\n")
        ),
        "think": Effect(
            False, user("PROMPT", model="thinker"), shows=lambda a: text(a).endswith("<think>\n\n</think>\n\n")
        ),
        "reasoning": Effect(
            {"effort": "none"},
            user("PROMPT", model="thinker"),
            shows=lambda a: text(a).endswith("<think>\n\n</think>\n\n"),
        ),
        "reasoning_budget_tokens": Effect(
            2,
            user("THINK", model="thinker"),
            shows=lambda a: message(a)["reasoning"] == "Let" and whole(a)["usage"]["completion_tokens"] > 6,
        ),
        "chat_template_kwargs": Effect(
            {"enable_thinking": False},
            user("PROMPT", model="thinker"),
            shows=lambda a: text(a).endswith("<think>\n\n</think>\n\n"),
        ),
        "continue_final_message": Effect(
            True,
            {"messages": [{"role": "user", "content": "PROMPT"}, {"role": "assistant", "content": "Once"}]},
            shows=lambda a: text(a).endswith("assistant\nOnce"),
        ),
        "add_generation_prompt": Effect(
            False,
            {
                "messages": [{"role": "user", "content": "PROMPT"}, {"role": "assistant", "content": "Once"}],
                "continue_final_message": True,
            },
            shows=lambda a: text(a).endswith("assistant\nOnce"),
        ),
    },
    CompletionBody: SAMPLED
    | {
        "prompt": Effect("PROMPT me", shows=lambda a: text(a) == "PROMPT me"),
        "max_tokens": Effect(3, shows=lambda a: whole(a)["usage"]["completion_tokens"] == 3),
        "best_of": Effect(3, shows=lambda a: len(whole(a)["choices"]) == 1),
        "echo": Effect(True, shows=lambda a: text(a).startswith("SAMPLING")),
        "suffix": Effect("end", {"prompt": "PROMPT"}, shows=lambda a: text(a) == "APROMPTBendC"),
        "logprobs": Effect(2, shows=lambda a: len(whole(a)["choices"][0]["logprobs"]["top_logprobs"][0]) == 2),
    },
    EmbeddingBody: {
        "model": Effect("embedder", shows=lambda a: whole(a)["model"] == "embedder"),
        "input": Effect(["a", "b"], shows=lambda a: len(whole(a)["data"]) == 2),
        "encoding_format": Effect("base64", shows=lambda a: isinstance(whole(a)["data"][0]["embedding"], str)),
        "dimensions": Effect(3, shows=lambda a: len(whole(a)["data"][0]["embedding"]) == 3),
        "options": Effect({"num_ctx": 256}, loaded=reads(256)),
        "keep_alive": Effect(150, loaded=stays(150)),
        "num_ctx": Effect(128, loaded=reads(128)),
    },
    DecisionBody: {
        "model": Effect("nope", status=404, shows=unknown),
        "input": Effect("a longer text " * 9, shows=lambda a: whole(a)["usage"]["input_tokens"] > 100),
        "questions": Effect(
            [{"type": "predicate", "instructions": "Is it?", "name": "one"}],
            shows=lambda a: whole(a)["answers"][0]["name"] == "one",
        ),
        "options": Effect({"num_ctx": 256}, loaded=reads(256)),
        "keep_alive": Effect(150, loaded=stays(150)),
        "num_ctx": Effect(512, loaded=reads(512)),
    },
    RerankBody: {
        "model": Effect("nope", status=404, shows=unknown),
        "query": Effect("a longer query", shows=lambda a: whole(a)["usage"]["total_tokens"] > 20),
        "documents": Effect(["a", "b", "c"], shows=lambda a: len(whole(a)["results"]) == 3),
        "top_n": Effect(1, shows=lambda a: len(whole(a)["results"]) == 1),
        "return_documents": Effect(True, shows=lambda a: "document" in whole(a)["results"][0]),
        "truncation": Effect(True, {"documents": ["x" * 5000]}, shows=lambda a: a.headers["x-puna-truncated"] == "1"),
        "max_tokens_per_doc": Effect(1, shows=lambda a: a.headers["x-puna-truncated"] == "2"),
        "options": Effect({"num_ctx": 256}, loaded=reads(256)),
        "keep_alive": Effect(150, loaded=stays(150)),
        "num_ctx": Effect(128, loaded=reads(128)),
    },
    TextsRankBody: {
        "model": Effect("nope", status=404, shows=unknown),
        "query": Effect("a", shows=lambda a: len(a.json) == 2),
        "texts": Effect(["a", "b", "c"], shows=lambda a: len(a.json) == 3),
        "raw_scores": Effect(True, shows=lambda a: a.json[0]["score"] in {-2.0, 2.0}),
        "return_text": Effect(True, shows=lambda a: "text" in a.json[0]),
        "truncate": Effect(True, {"texts": ["x" * 5000]}, shows=lambda a: a.headers["x-puna-truncated"] == "1"),
        "options": Effect({"num_ctx": 256}, loaded=reads(256)),
        "keep_alive": Effect(150, loaded=stays(150)),
        "num_ctx": Effect(128, loaded=reads(128)),
    },
    ScoreBody: {
        "model": Effect("nope", status=404, shows=unknown),
        "text_1": Effect(["a", "b"], shows=lambda a: len(whole(a)["data"]) == 2),
        "text_2": Effect("a", shows=lambda a: len(whole(a)["data"]) == 1),
        "options": Effect({"num_ctx": 256}, loaded=reads(256)),
        "keep_alive": Effect(150, loaded=stays(150)),
        "num_ctx": Effect(128, loaded=reads(128)),
    },
    TokenizeBody: {
        "model": Effect("nope", status=404, shows=unknown),
        "prompt": Effect("hi", shows=lambda a: whole(a)["tokens"] == [104, 105] and whole(a)["count"] == 2),
        "content": Effect("hi", {"prompt": None}, shows=lambda a: whole(a) == {"tokens": [104, 105]}),
        "messages": Effect(
            [{"role": "user", "content": "hi"}], {"prompt": None}, shows=lambda a: whole(a)["count"] > 2
        ),
        "tools": Effect([TOOL], {"prompt": None, **user("hi", model="tools")}, shows=lambda a: whole(a)["count"] > 100),
        "add_special_tokens": Effect(False, {"model": "begins"}, shows=lambda a: whole(a)["tokens"] == [*b"text"]),
        "add_special": Effect(
            True,
            {"model": "begins", "prompt": None, "content": "hi"},
            shows=lambda a: whole(a)["tokens"][1:] == [104, 105],
        ),
        "parse_special": Effect(False, {"prompt": "<s>"}, shows=lambda a: whole(a)["count"] == 3),
        "chat_template_kwargs": Effect(
            {"enable_thinking": False},
            {"prompt": None, **user("hi", model="thinker")},
            shows=lambda a: whole(a)["count"] > 22,
        ),
    },
    ResponseBody: DRAWN
    | ASKED
    | {
        "ignore_eos": Effect(True, {"max_output_tokens": 20}, shows=echoes("status", "incomplete")),
        "previous_response_id": Effect("{response}", {"input": "PROMPT"}, shows=stands_in("Earlier", "PROMPT")),
        "conversation": Effect("{conversation}", {"input": "PROMPT"}, shows=stands_in("Once", "PROMPT")),
        "stream_options": Effect(
            {"include_obfuscation": True}, {"stream": True}, shows=lambda a: b'"obfuscation":' in a.body
        ),
        "store": Effect(False, shows=echoes("store", False)),
        "background": Effect(True, shows=echoes("status", "queued")),
        "include": Effect(
            ["message.output_text.logprobs"], shows=lambda a: whole(a)["output"][0]["content"][0]["logprobs"]
        ),
        "max_output_tokens": Effect(3, shows=lambda a: whole(a)["usage"]["output_tokens"] == 3),
        "reasoning_budget_tokens": Effect(
            2,
            {"input": "THINK", "model": "thinker"},
            shows=lambda a: whole(a)["output"][0]["content"][0]["text"] == "Let",
        ),
        "max_tool_calls": Effect(3, shows=echoes("max_tool_calls", 3)),
        "top_logprobs": Effect(
            2, shows=lambda a: len(whole(a)["output"][0]["content"][0]["logprobs"][0]["top_logprobs"]) == 2
        ),
        "metadata": Effect({"a": "b"}, shows=echoes("metadata", {"a": "b"})),
    },
    InputTokensBody: {
        "model": Effect("nope", status=404, shows=unknown),
        "input": Effect("a longer text", shows=lambda a: counted(a) > 25),
        "instructions": Effect("Be brief.", shows=lambda a: counted(a) > 25),
        "previous_response_id": Effect("{response}", shows=lambda a: counted(a) > 40),
        "conversation": Effect("{conversation}", shows=lambda a: counted(a) > 25),
        "tools": Effect([FLAT], {"model": "tools"}, shows=lambda a: counted(a) > 100),
        "tool_choice": Effect("required", status=400, shows=lambda a: a.error["param"] == "tool_choice"),
        "parallel_tool_calls": Effect(False, shows=lambda a: counted(a) > 1),
        "text": Effect(
            {"format": {"type": "json_schema", "name": "a", "schema": {"type": 1}}},
            status=400,
            shows=lambda a: a.error["param"].startswith("text.format"),
        ),
        "reasoning": Effect({"effort": "none"}, {"model": "thinker"}, shows=lambda a: counted(a) > 25),
        "truncation": Effect("auto", shows=lambda a: counted(a) > 1),
    },
    CompactBody: {
        "model": Effect("nope", status=404, shows=unknown),
        "input": Effect("a" * 5000, status=400, shows=lambda a: a.error["code"] == "context_length_exceeded"),
        "instructions": Effect("a" * 5000, status=400, shows=lambda a: a.error["code"] == "context_length_exceeded"),
        "previous_response_id": Effect("{response}", shows=lambda a: whole(a)["usage"]["input_tokens"] > 290),
        "prompt_cache_key": Effect("key", shows=lambda a: whole(a)["output"][0]["type"] == "compaction"),
    },
    ConversationBody: {
        "items": Effect([{"role": "user", "content": "hi"}], shows=echoes("object", "conversation")),
        "metadata": Effect({"a": "b"}, shows=echoes("metadata", {"a": "b"})),
    },
    ConversationUpdateBody: {"metadata": Effect({"a": "b"}, shows=echoes("metadata", {"a": "b"}))},
    ConversationItemsBody: {
        "items": Effect(
            [{"role": "user", "content": "hi"}],
            shows=lambda a: whole(a)["data"][0]["content"] == [{"type": "input_text", "text": "hi"}],
        )
    },
    DetokenizeBody: {
        "model": Effect("nope", status=404, shows=unknown),
        "tokens": Effect([104, 105], shows=lambda a: whole(a) == {"prompt": "hi", "content": "hi"}),
    },
}


def cases(kind: type) -> list[Any]:
    found = [(shape, row) for shape in BODIES for row in shape_fields(shape) if isinstance(row.mark, kind)]
    return [pytest.param(shape, row, id=f"{PATHS[shape]}:{row.name}") for shape, row in found]


def send(server: Any, shape: type[Shape], *changes: dict[str, Any] | None, **headers: str) -> Any:
    body: dict[str, Any] = dict(BASE[shape])
    for change in changes:
        body |= change or {}
    path = PATHS[shape]
    if "{id}" in path:
        path = path.replace("{id}", stored(server, "{conversation}"))
    return server.post(path, {name: stored(server, value) for name, value in body.items()}, headers=headers)


def stored(server: Any, value: Any) -> Any:
    """The id of a new object in the place of the word for it."""
    if value == "{conversation}":
        return server.post("/v1/conversations", {"items": [{"role": "user", "content": "Once"}]}).json["id"]
    if value == "{response}":
        return server.post("/v1/responses", {"model": "tiny", "input": "Earlier"}).json["id"]
    return value


@pytest.mark.parametrize(("shape", "row"), cases(Honoured))
def test_honoured_fields_have_their_effect(server, shape: type[Shape], row: ShapeField):
    effect = EFFECTS[shape][row.name]
    if effect.loaded is not None:
        server.post("/api/unload", {"all": True})
    answer = send(server, shape, effect.beside, {row.name: effect.value})
    assert answer.status == effect.status, answer.body
    assert row.name not in answer.headers.get("x-puna-ignored", "").split(", ")
    if effect.setting is not None:
        assert effect.setting.items() <= settings(answer).items()
    if effect.shows is not None:
        assert effect.shows(answer), answer.body
    if effect.loaded is not None:
        name = (BASE[shape] | (effect.beside or {}))["model"]
        models = [model for model in server.get("/api/ps").json["models"] if model["name"] == f"{name}:latest"]
        assert any(map(effect.loaded, models)), models


def effectless(row: ShapeField) -> Any:
    return {
        "user": "me",
        "prompt_cache_key": "mine",
        "priority": 5,
        "service_tier": "flex",
        "safety_identifier": "me",
        "prompt_cache_retention": "24h",
        "prompt_cache_options": {"a": 1},
        "verbosity": "low",
        "background_options": {"completion_window": "8h"},
        "access_programs": {"cyber": "standard"},
        "image": {"context_compression": "disabled"},
        "personality": "friendly",
    }[row.name]


@pytest.mark.parametrize(("shape", "row"), cases(Reported))
def test_reported_fields_are_named(server, shape: type[Shape], row: ShapeField):
    answer = send(server, shape, {row.name: effectless(row)})
    assert answer.status == 200
    assert answer.headers["x-puna-ignored"] == row.name
    assert isinstance(row.mark, Reported)
    for value in row.mark.harmless:
        assert "x-puna-ignored" not in send(server, shape, {row.name: value}).headers


@pytest.mark.parametrize(("shape", "row"), cases(Refused))
def test_refused_fields_are_refused(server, shape: type[Shape], row: ShapeField):
    asks = {
        "modalities": ["text", "audio"],
        "with_pieces": True,
        "return_token_strs": True,
        "add_generation_prompt": False,
        "max_chunks_per_doc": 5,
        "rank_fields": ["title"],
        "return_embeddings": True,
        "truncation_direction": "Left",
        "truncate_prompt_tokens": 5,
    }
    answer = send(server, shape, {row.name: asks.get(row.name, {"a": 1})})
    assert answer.status == 400
    assert (answer.error["param"], answer.error["code"]) == (row.name, "unsupported_value")
    assert isinstance(row.mark, Refused)
    for value in row.mark.harmless:
        assert send(server, shape, {row.name: value}).status == 200


def bounds() -> list[Any]:
    found = []
    for shape in BODIES:
        for row in shape_fields(shape):
            info = shape.model_fields[row.attribute]
            decimal = "float" in str(info.annotation)
            for item in info.metadata:
                match item:
                    case annotated_types.Gt(gt=least):
                        found.append((shape, row.name, least, "decimal_below_min_value"))
                    case annotated_types.Ge(ge=least):
                        word = "decimal" if decimal else "integer"
                        found.append((shape, row.name, least - 1, f"{word}_below_min_value"))
                    case annotated_types.Le(le=most):
                        word = "decimal" if decimal else "integer"
                        found.append((shape, row.name, most + 1, f"{word}_above_max_value"))
    return [pytest.param(*one, id=f"{PATHS[one[0]]}:{one[1]}:{one[3]}") for one in found]


@pytest.mark.parametrize(("shape", "field", "value", "code"), bounds())
def test_values_out_of_bounds_name_the_field(server, shape: type[Shape], field: str, value: Any, code: str):
    answer = send(server, shape, {field: value})
    assert answer.status == 400
    assert (answer.error["param"], answer.error["code"]) == (field, code)
    assert answer.error["type"] == "invalid_request_error"


def takes_anything(shape: type[Shape], row: ShapeField) -> bool:
    """It is refused, whatever is in it."""
    return isinstance(row.mark, Refused) and "JsonValue" in str(shape.model_fields[row.attribute].annotation)


@pytest.mark.parametrize(
    ("shape", "row"),
    [
        pytest.param(shape, row, id=f"{PATHS[shape]}:{row.name}")
        for shape in BODIES
        for row in shape_fields(shape)
        if not takes_anything(shape, row)
    ],
)
def test_values_of_a_wrong_type_name_the_field(server, shape: type[Shape], row: ShapeField):
    wrong: Any = {"stop": 5, "keep_alive": [], "think": 5}.get(row.name, "text")
    if "str" in str(shape.model_fields[row.attribute].annotation):
        wrong = 1.5 if row.name != "keep_alive" else []
    answer = send(server, shape, {row.name: wrong})
    assert answer.status == 400, answer.body
    assert answer.error["param"] == row.name
    assert answer.error["code"] in {"invalid_type", "invalid_value"}


@pytest.mark.parametrize("shape", BODIES, ids=PATHS.values())
def test_unknown_fields_are_reported_or_refused(server, serving, shape: type[Shape]):
    extra = {"frobnicate": 1, "a b\r\nc": 2}
    answer = send(server, shape, extra)
    assert answer.status == 200
    assert answer.headers["x-puna-ignored"] == "frobnicate, a%20b%0D%0Ac"
    refused = send(server, shape, extra, **{"x-puna-strict": "true"})
    assert (refused.status, refused.error["code"], refused.error["param"]) == (400, "unknown_parameter", "frobnicate")


def test_strict_is_also_a_setting_that_a_header_lifts(serving):
    with serving(strict=True) as own:
        assert own.chat(frobnicate=1).error["code"] == "unknown_parameter"
        assert own.chat(frobnicate=1, headers={"x-puna-strict": "false"}).status == 200
        assert own.chat(headers={"x-puna-strict": "perhaps"}).status == 400


def test_unknown_fields_inside_are_reported_with_their_path(server):
    messages = [{"role": "user", "content": [{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}]}]
    answer = server.post("/v1/chat/completions", {"model": "tiny", "messages": messages, "stream": True})
    assert answer.headers["x-puna-ignored"] == "messages[0].content[0].cache_control"


def test_errors_name_ignored_fields_too(server):
    assert server.chat(model="nope", user="me").headers["x-puna-ignored"] == "user"


def test_options_without_effect_are_reported(server):
    answer = server.chat(options={"frobnicate": 1, "num_keep": 3})
    assert set(answer.headers["x-puna-ignored"].split(", ")) >= {"options.frobnicate"}
    assert server.chat(options={"num_ctx": "x"}).error["param"] == "options.num_ctx"


def test_a_field_wins_over_the_same_option(server):
    assert server.sampling(temperature=0.5, options={"temperature": 0.25, "top_k": 3})["temperature"] == 0.5


def test_every_field_is_marked():
    for shape in (*BODIES, *nested_shapes(BODIES)):
        for row in shape_fields(shape):
            assert row.mark is not None or row.name in {"type", "role"}, f"{shape.__name__}.{row.name}"


def test_every_honoured_field_has_a_proof():
    for shape in BODIES:
        honoured = {row.name for row in shape_fields(shape) if isinstance(row.mark, Honoured)}
        assert EFFECTS[shape].keys() >= honoured


@pytest.mark.parametrize(
    ("published", "shape"),
    [
        (CompletionCreateParamsStreaming, ChatCompletionBody),
        (LegacyParamsStreaming, CompletionBody),
        (EmbeddingCreateParams, EmbeddingBody),
        (DecisionCreateParams, DecisionBody),
        (QuestionQuestionParamPredicate, PredicateQuestion),
        (QuestionQuestionParamChoice, ChoiceQuestion),
        (QuestionQuestionParamScore, ScoreQuestion),
        (ChatCompletionContentPartTextParam, TextContentPart),
        (ChatCompletionContentPartImageParam, ImageContentPart),
        (ChatCompletionContentPartInputAudioParam, AudioContentPart),
        (ChatCompletionAssistantMessageParam, AssistantMessage),
        (ChatCompletionStreamOptionsParam, StreamOptions),
        (ResponseCreateParamsStreaming, ResponseBody),
        (ResponseStreamOptionsParam, ResponseStreamOptions),
        (Reasoning, ReasoningSettings),
        (ResponseTextConfigParam, TextSettings),
        (ResponseFormatTextJSONSchemaConfigParam, FlatSchemaFormat),
        (InputTokenCountParams, InputTokensBody),
        (ResponseCompactParams, CompactBody),
        (ConversationCreateParams, ConversationBody),
        (ConversationUpdateParams, ConversationUpdateBody),
        (EasyInputMessageParam, items.MessageItem),
        (ResponseOutputMessageParam, items.MessageItem),
        (ResponseFunctionToolCallParam, items.FunctionCallItem),
        (FunctionCallOutput, items.FunctionOutputItem),
        (ResponseCustomToolCallParam, items.CustomCallItem),
        (ResponseCustomToolCallOutputParam, items.CustomOutputItem),
        (ResponseReasoningItemParam, items.ReasoningItem),
        (ResponseCompactionItemParamParam, items.CompactionItem),
        (ItemReferenceParam, items.ItemReference),
        (ResponseInputTextParam, pieces.InputText),
        (ResponseInputImageParam, pieces.InputImage),
        (ResponseInputFileParam, pieces.InputFile),
        (ResponseInputAudioParam, pieces.InputSound),
        (ResponseOutputTextParam, pieces.OutputText),
        (FunctionToolParam, tools.FlatFunction),
        (CustomToolParam, tools.FlatCustom),
        (ToolChoiceFunctionParam, tools.ChosenTool),
        (ToolChoiceAllowedParam, tools.AllowedChoice),
    ],
)
def test_every_published_field_is_in_the_contract(published: type, shape: type[Shape]):
    """As the `openai` package has them, which is made from OpenAI's specification."""
    fields = published.__required_keys__ | published.__optional_keys__  # type: ignore[attr-defined]
    assert fields <= {row.name for row in shape_fields(shape)}
