"""/v1/decisions: its contract, the questions as a model reads them, and its answers. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Literal, TypeAlias

from pydantic import Discriminator, Field, StrictBool, StrictStr, Tag

from puna.errors import InvalidRequest
from puna.server.contract.converted import Converted
from puna.server.contract.names import FieldNames
from puna.server.contract.options import read_keep_alive
from puna.server.contract.shapes import UNION, Honoured, JsonObject, JsonValue, Refused, Reported, Shape
from puna.server.openai.options import USER_MEANING, Extras, load_options
from puna.types import DecisionRequest, Decisions, Message, Question, TextPart, ToolCall

_CACHED = Reported("Every prompt is cached as far as it was seen before.")
_SINGLE_ID = Reported("Objects of a request need no ids.")

# ------------------------------------------------------------------------------------------------------------ parts


class DecisionText(Shape):
    type: Literal["input_text", "output_text"]
    text: Annotated[str, Honoured("The text.")]
    prompt_cache_breakpoint: Annotated[JsonObject | None, _CACHED] = None


class DecisionRefusal(Shape):
    type: Literal["refusal"]
    refusal: Annotated[str, Honoured("A refusal of an earlier turn; given to the model as text.")]


class DecisionJson(Shape):
    type: Literal["input_json"]
    data: Annotated[JsonObject | list[JsonObject], Honoured("Given to the model as JSON text.")]


class DecisionImage(Shape):
    type: Literal["input_image"]
    image_url: Annotated[
        JsonValue, Refused("Decisions are made of text: the engines give no probabilities after images.")
    ] = None
    detail: Annotated[JsonValue, Refused("Decisions are made of text.")] = None
    prompt_cache_breakpoint: Annotated[JsonObject | None, _CACHED] = None


DecisionPart: TypeAlias = Annotated[
    DecisionText | DecisionRefusal | DecisionJson | DecisionImage, Field(discriminator="type")
]


def _text_or_array(value: object) -> str | None:
    return "array" if isinstance(value, list) else "text" if isinstance(value, str) else None


DecisionContent: TypeAlias = Annotated[
    Annotated[str, Tag("text")] | Annotated[list[DecisionPart], Field(min_length=1), Tag("array")],
    Discriminator(_text_or_array, custom_error_type=UNION, custom_error_message="a string or an array of parts"),
]

# ------------------------------------------------------------------------------------------------------------ items


class DecisionMessage(Shape):
    type: Literal["message"] | None = None
    role: Annotated[
        Literal["user", "assistant", "system", "developer"], Honoured("Who speaks; a developer is the system.")
    ]
    content: Annotated[DecisionContent, Honoured("Text, or parts: input_text, input_json, output_text, refusal.")]
    phase: Annotated[Literal["commentary", "final_answer"] | None, Reported("Models here know no phases.")] = None


class _Called(Shape):
    id: Annotated[str | None, _SINGLE_ID] = None
    status: Annotated[Literal["in_progress", "completed", "incomplete"] | None, _SINGLE_ID] = None


class DecisionFunctionCall(_Called):
    type: Literal["function_call"]
    call_id: Annotated[str, Honoured("The call's id, which an output answers.")]
    name: Annotated[str, Honoured("Its name.")]
    arguments: Annotated[str, Honoured("JSON text of an object.")]
    namespace: Annotated[str | None, Reported("Tools here have no namespaces.")] = None


class DecisionCustomCall(_Called):
    type: Literal["custom_tool_call"]
    call_id: Annotated[str, Honoured("The call's id, which an output answers.")]
    name: Annotated[str, Honoured("Its name.")]
    input: Annotated[str, Honoured("Free text.")]
    namespace: Annotated[str | None, Reported("Tools here have no namespaces.")] = None


class DecisionOutput(_Called):
    type: Literal["function_call_output", "custom_tool_call_output"]
    call_id: Annotated[str, Honoured("The call it answers; must be one of the input's.")]
    output: Annotated[DecisionContent, Honoured("The result.")]


def _item_kind(value: object) -> str | None:
    if isinstance(value, DecisionMessage | DecisionFunctionCall | DecisionCustomCall | DecisionOutput):
        return "output" if isinstance(value, DecisionOutput) else value.type or "message"
    if not isinstance(value, dict):
        return None
    kind = value.get("type") or "message"
    if not isinstance(kind, str):
        return None
    return "output" if kind in {"function_call_output", "custom_tool_call_output"} else kind


DecisionItem: TypeAlias = Annotated[
    Annotated[DecisionMessage, Tag("message")]
    | Annotated[DecisionFunctionCall, Tag("function_call")]
    | Annotated[DecisionCustomCall, Tag("custom_tool_call")]
    | Annotated[DecisionOutput, Tag("output")],
    Discriminator(
        _item_kind,
        custom_error_type=UNION,
        custom_error_message="a message, or a function_call, a custom_tool_call or the output of one",
    ),
]
DecisionInput: TypeAlias = Annotated[
    Annotated[str, Tag("text")] | Annotated[list[DecisionItem], Field(min_length=1), Tag("array")],
    Discriminator(_text_or_array, custom_error_type=UNION, custom_error_message="a string or an array of items"),
]

# -------------------------------------------------------------------------------------------------------- questions

_Label = Annotated[str, Field(min_length=1)]


class _Asked(Shape):
    instructions: Annotated[DecisionContent, Honoured("What is asked of the input.")]
    name: Annotated[str | None, Honoured("Comes back with the answer.")] = None


class PredicateQuestion(_Asked):
    type: Literal["predicate"]


def _text_or_truth(value: object) -> str | None:
    return "truth" if isinstance(value, bool) else "text" if isinstance(value, str) else None


class DecisionChoice(Shape):
    value: Annotated[
        Annotated[
            Annotated[StrictBool, Tag("truth")] | Annotated[StrictStr, Field(min_length=1), Tag("text")],
            Discriminator(_text_or_truth, custom_error_type=UNION, custom_error_message="a string or a boolean"),
        ],
        Honoured("What the model is offered, and what comes back. No two of a question are alike."),
    ]
    description: Annotated[str | None, Honoured("What it means; the model reads it.")] = None


class ChoiceQuestion(_Asked):
    type: Literal["choice"]
    choices: Annotated[
        list[DecisionChoice], Field(min_length=2, max_length=255), Honoured("Of which one is to be chosen.")
    ]


class DecisionLevel(Shape):
    label: Annotated[_Label, Honoured("What the model is offered. No two of a question are alike.")]
    description: Annotated[str | None, Honoured("What it means; the model reads it.")] = None


class ScoreQuestion(_Asked):
    type: Literal["score"]
    levels: Annotated[
        list[DecisionLevel], Field(min_length=2, max_length=255), Honoured("From the lowest, which is 0.")
    ]


DecisionQuestion: TypeAlias = Annotated[PredicateQuestion | ChoiceQuestion | ScoreQuestion, Field(discriminator="type")]


class DecisionBody(Extras):
    """POST /v1/decisions"""

    model: Annotated[str, Field(min_length=1), Honoured("A Name, as `puna list` shows it.")]
    input: Annotated[DecisionInput, Honoured("What all questions are about: text, or items of a conversation.")]
    questions: Annotated[
        list[DecisionQuestion],
        Field(min_length=1, max_length=400),
        Honoured(
            "Each is asked by itself, after the input, without thinking. A probability is that of the label's tokens "
            "as the beginning of the answer, divided by that of all labels together."
        ),
    ]
    prompt_cache_key: Annotated[str | None, Field(max_length=1024), _CACHED] = None
    prompt_cache_options: Annotated[JsonObject | None, _CACHED] = None
    safety_identifier: Annotated[str | None, Field(max_length=128), Reported(USER_MEANING)] = None


# -------------------------------------------------------------------------------------------------- what they become

_YES, _NO = "Yes", "No"


def to_decisions(body: DecisionBody) -> Converted[DecisionRequest]:
    asked = load_options(body, loading=True)
    questions = tuple(_question(question, f"questions[{at}]") for at, question in enumerate(body.questions))
    request = DecisionRequest(
        model=body.model,
        messages=_messages(body.input),
        questions=questions,
        options=asked.options,
        keep_alive=read_keep_alive(body.keep_alive),
    )
    names = FieldNames({"messages": "input", **asked.names})
    return Converted(request, asked.ignored, names)


def _messages(given: DecisionInput) -> tuple[Message, ...]:
    if isinstance(given, str):
        return (Message.of("user", given),)
    messages: list[Message] = []
    called: dict[str, str] = {}
    for at, item in enumerate(given):
        match item:
            case DecisionMessage(role=role, content=content):
                speaker = "system" if role == "developer" else role
                messages.append(Message.of(speaker, _text(content)))
            case DecisionFunctionCall() | DecisionCustomCall():
                called[item.call_id] = item.name
                _append_call(messages, _call(item))
            case DecisionOutput(call_id=id_, output=output):
                if id_ not in called:
                    path = f"input[{at}].call_id"
                    raise InvalidRequest(f"Invalid '{path}': no earlier item is a call '{id_[:100]}'.", param=path)
                text = (TextPart(_text(output)),)
                messages.append(Message("tool", text, name=called[id_], tool_call_id=id_))
    return tuple(messages)


def _call(item: DecisionFunctionCall | DecisionCustomCall) -> ToolCall:
    if isinstance(item, DecisionCustomCall):
        return ToolCall(item.call_id, item.name, item.input, "custom")
    return ToolCall(item.call_id, item.name, item.arguments if item.arguments.strip() else "{}")


def _append_call(messages: list[Message], call: ToolCall) -> None:
    """Calls that follow each other are one turn."""
    if messages and messages[-1].role == "assistant":
        last = messages.pop()
        messages.append(Message("assistant", last.content, tool_calls=(*last.tool_calls, call)))
    else:
        messages.append(Message("assistant", tool_calls=(call,)))


def _text(content: DecisionContent) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(map(_part_text, content))


def _part_text(part: DecisionPart) -> str:
    match part:
        case DecisionText(text=text):
            return text
        case DecisionRefusal(refusal=text):
            return text
        case DecisionJson(data=data):
            return json.dumps(data, ensure_ascii=False, separators=(",", ":"))
        case _:
            raise AssertionError("images are refused before")


def _question(question: DecisionQuestion, path: str) -> Question:
    asked = _text(question.instructions)
    match question:
        case PredicateQuestion():
            return Question(f"{asked}\n\nIs this true? Answer with one word, {_YES} or {_NO}.", (_YES, _NO))
        case ChoiceQuestion(choices=choices):
            labels = _labels([choice.value for choice in choices], f"{path}.choices")
            listed = _listed(labels, [choice.description for choice in choices])
            return Question(f"{asked}\n\nAnswer with exactly one of these, and nothing else:\n{listed}", labels)
        case ScoreQuestion(levels=levels):
            labels = _labels([level.label for level in levels], f"{path}.levels")
            listed = _listed(labels, [level.description for level in levels])
            text = f"{asked}\n\nAnswer with exactly one of these levels, from the lowest to the highest:\n{listed}"
            return Question(text, labels)


def _labels(values: Sequence[str | bool], path: str) -> tuple[str, ...]:
    """As texts; as JSON where a text and a boolean would be the same one."""
    if len({(type(value), value) for value in values}) < len(values):
        raise InvalidRequest(f"Invalid '{path}': two of them are the same.", param=path)
    texts = tuple(value if isinstance(value, str) else json.dumps(value) for value in values)
    return texts if len(set(texts)) == len(texts) else tuple(json.dumps(value, ensure_ascii=False) for value in values)


def _listed(labels: Sequence[str], descriptions: Sequence[str | None]) -> str:
    return "\n".join(
        f"- {label}: {description}" if description else f"- {label}"
        for label, description in zip(labels, descriptions, strict=True)
    )


# ---------------------------------------------------------------------------------------------------------- answers


def decisions_json(body: DecisionBody, decisions: Decisions) -> JsonObject:
    """OpenAI's object. Nothing is refused: each question has its answer."""
    answers: list[JsonValue] = [
        _answer(question, probabilities)
        for question, probabilities in zip(body.questions, decisions.probabilities, strict=True)
    ]
    usage = decisions.usage
    return {
        "answers": answers,
        "model": body.model,
        "usage": {
            "input_tokens": usage.prompt,
            "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": 0},
            "output_tokens": 0,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage.prompt,
        },
    }


def _answer(question: DecisionQuestion, probabilities: tuple[float, ...]) -> JsonObject:
    best = max(range(len(probabilities)), key=lambda place: probabilities[place])
    shown: list[JsonValue]
    match question:
        case PredicateQuestion():
            return {"type": "predicate", "name": question.name, "probability": probabilities[0]}
        case ChoiceQuestion(choices=choices):
            shown = [
                {"value": choice.value, "probability": probability}
                for choice, probability in zip(choices, probabilities, strict=True)
            ]
            return {
                "type": "choice",
                "name": question.name,
                "choice": choices[best].value,
                "confidence": probabilities[best],
                "probabilities": shown,
            }
        case ScoreQuestion(levels=levels):
            shown = [
                {"label": level.label, "value": value, "probability": probability}
                for value, (level, probability) in enumerate(zip(levels, probabilities, strict=True))
            ]
            return {
                "type": "score",
                "name": question.name,
                "score": sum(value * probability for value, probability in enumerate(probabilities)),
                "confidence": probabilities[best],
                "probabilities": shown,
            }
