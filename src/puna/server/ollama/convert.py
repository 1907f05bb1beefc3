"""Ollama's bodies to our Requests, and our Events to Ollama's objects. Pure.

What a body asks for and Puna cannot do is refused here with an error that names the field, or returned in `ignored`,
which the answer reports in its header `x-puna-ignored`.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Generic, TypeVar, cast

from puna.errors import InvalidRequest, Unsupported
from puna.model.parameters import options_from_json
from puna.server.media import check_image, check_sound, check_together, sound_kind
from puna.server.ollama.schema import ChatBody, EmbedBody, GenerateBody, MessageBody, ToolBody, json_kind
from puna.settings import parse_duration
from puna.types import (
    AudioPart,
    Candidate,
    ChatRequest,
    CompletionRequest,
    Done,
    EmbedRequest,
    Event,
    Finished,
    ImagePart,
    JsonObject,
    JsonOutput,
    JsonValue,
    Message,
    Options,
    Part,
    Role,
    Started,
    TextDelta,
    TextPart,
    Think,
    ThinkingDelta,
    TokenLogprob,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolCallStart,
)

Request_co = TypeVar("Request_co", covariant=True)

MAX_TOP_LOGPROBS = 20
_ROLES: tuple[Role, ...] = ("system", "user", "assistant", "tool")
_LEVELS = ("high", "medium", "low", "max")


@dataclass(frozen=True, slots=True)
class Converted(Generic[Request_co]):
    """A Request, and the fields that have no effect on it."""

    request: Request_co
    ignored: tuple[str, ...] = ()


# ------------------------------------------------------------------------------------------------- bodies to requests


def generate_request(body: GenerateBody) -> Converted[ChatRequest | CompletionRequest]:
    """A prompt becomes a chat of one turn; a raw one, or one with a suffix, is continued as it is."""
    if body.raw and (body.template or body.system or body.context):
        raise InvalidRequest("raw mode does not support template, system, or context", param="raw")
    if body.raw or body.suffix:
        return _completion(body)
    options, ignored = read_options(body.options)
    turns = [Message.of("system", body.system)] if body.system else []
    turns.append(Message("user", _illustrated(body.prompt, _media(body.images, "images"))))
    check_together(turns, "images")
    request = ChatRequest(
        model=body.model,
        messages=tuple(turns),
        options=options,
        output=read_format(body.format),
        think=read_think(body.think),
        logprobs=read_logprobs(body.logprobs, body.top_logprobs),
        keep_alive=read_keep_alive(body.keep_alive),
        truncate=body.truncate,
        template=body.template or None,
        context=tuple(body.context),
    )
    return Converted(request, (*body.unknown, *ignored, *_no_shift(body.shift)))


def _completion(body: GenerateBody) -> Converted[CompletionRequest]:
    if body.images:
        raise Unsupported("images need a chat template: leave out raw and suffix", param="images")
    if body.raw and body.suffix:
        raise InvalidRequest("raw mode does not support suffix", param="suffix")
    if read_think(body.think):
        raise Unsupported("think needs a chat template: leave out raw and suffix", param="think")
    options, ignored = read_options(body.options)
    request = CompletionRequest(
        model=body.model,
        prompts=(body.prompt,),
        suffix=body.suffix or None,
        options=options,
        output=read_format(body.format),
        logprobs=read_logprobs(body.logprobs, body.top_logprobs),
        keep_alive=read_keep_alive(body.keep_alive),
    )
    # A fill in the middle has no conversation, so these have nothing to act on.
    aside = tuple(name for name in ("system", "template", "context") if getattr(body, name))
    return Converted(request, (*body.unknown, *ignored, *aside, *_no_shift(body.shift)))


def chat_request(body: ChatBody) -> Converted[ChatRequest]:
    options, ignored = read_options(body.options)
    messages = tuple(read_message(message, f"messages[{index}]") for index, message in enumerate(body.messages))
    check_together(messages, "messages")
    request = ChatRequest(
        model=body.model,
        messages=messages,
        options=options,
        tools=tuple(_tool(tool, f"tools[{index}]") for index, tool in enumerate(body.tools)),
        output=read_format(body.format),
        think=read_think(body.think),
        logprobs=read_logprobs(body.logprobs, body.top_logprobs),
        keep_alive=read_keep_alive(body.keep_alive),
        truncate=body.truncate,
    )
    return Converted(request, (*body.unknown, *ignored, *_no_shift(body.shift)))


def embed_request(body: EmbedBody) -> Converted[EmbedRequest]:
    """No input, an empty text and an empty list make a request without inputs: it only loads the model."""
    options, ignored = read_options(body.options)
    if body.dimensions < 0:
        raise InvalidRequest("dimensions must not be negative", param="dimensions")
    request = EmbedRequest(
        model=body.model,
        inputs=_inputs(body.input),
        options=options,
        dimensions=body.dimensions or None,
        truncate=body.truncate,
        keep_alive=read_keep_alive(body.keep_alive),
    )
    return Converted(request, (*body.unknown, *ignored))


def _inputs(value: object) -> tuple[str, ...]:
    match value:
        case None | "":
            return ()
        case str():
            return (value,)
        case list() if all(isinstance(item, str) for item in value):
            return tuple(value)
        case _:
            raise InvalidRequest("invalid input type", param="input", code="invalid_type")


def read_message(body: MessageBody, path: str) -> Message:
    role = body.role.lower()
    if role not in _ROLES:
        raise InvalidRequest(
            f"invalid role {json.dumps(body.role)}: must be one of system, user, assistant or tool",
            param=f"{path}.role",
        )
    calls = tuple(
        ToolCall(call.id or f"call_{index}", call.function.name, _compact(call.function.arguments))
        for index, call in enumerate(body.tool_calls)
    )
    return Message(
        role=role,
        content=_illustrated(body.content, _media(body.images, f"{path}.images")),
        name=body.tool_name or None,
        thinking=body.thinking or None,
        tool_calls=calls,
        tool_call_id=body.tool_call_id or None,
    )


def _tool(body: ToolBody, path: str) -> Tool:
    if body.type != "function":
        raise Unsupported(f"tool type {json.dumps(body.type)} is not supported, only function is", param=f"{path}.type")
    function = body.function
    if not function.name:
        raise InvalidRequest(f"{path}.function.name is required", param=f"{path}.function.name")
    parameters = cast("JsonObject | None", function.parameters)
    return Tool(function.name, function.description, parameters, function.strict)


def _media(images: Sequence[str], path: str) -> tuple[Part, ...]:
    return tuple(_decoded(text, f"{path}[{index}]") for index, text in enumerate(images))


def _illustrated(text: str, media: Sequence[Part]) -> tuple[Part, ...]:
    """Images stand before the text, as Ollama puts them, but for those that it has a place for: '[img]'."""
    if not media:
        return (TextPart(text),)
    first, *rest = text.split("[img]", len(media))
    before = media[: len(media) - len(rest)]
    placed = [
        part for image, words in zip(media[len(before) :], rest, strict=True) for part in (image, TextPart(words))
    ]
    return tuple(part for part in (*before, TextPart(first), *placed) if part != TextPart(""))


def _decoded(text: str, path: str) -> Part:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        message = f"illegal base64 data at input byte {_illegal_byte(text)}"
        raise InvalidRequest(message, param=path, code="invalid_base64") from error
    # Ollama has one field for both; sound is told by its first bytes.
    return AudioPart(check_sound(data, path)) if sound_kind(data) else ImagePart(check_image(data, path))


def _illegal_byte(text: str) -> int:
    legal = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    return next((index for index, character in enumerate(text) if character not in legal), len(text))


def read_options(value: dict[str, object]) -> tuple[Options, tuple[str, ...]]:
    """InvalidRequest naming `options.<key>`; the second value names the options that are not known."""
    options, ignored = options_from_json(cast("JsonObject", value))
    return options, tuple(f"options.{name}" for name in ignored)


def read_format(value: object) -> JsonOutput | None:
    """'json', a JSON Schema, or nothing."""
    match value:
        case None | "":
            return None
        case "json":
            return JsonOutput()
        case dict():
            return JsonOutput(cast("JsonObject", value))
        case _:
            raise InvalidRequest(
                f'invalid format: {json.dumps(value)[:200]}; expected "json" or a valid JSON Schema object',
                param="format",
            )


def read_think(value: object) -> Think | None:
    match value:
        case None | bool():
            return value
        case "high" | "medium" | "low" | "max":
            return cast("Think", value)
        case _:
            raise InvalidRequest(
                f"invalid think value: {json.dumps(value)[:200]} "
                '(must be "high", "medium", "low", "max", true, or false)',
                param="think",
            )


def read_logprobs(wanted: bool, top: int) -> int | None:
    """How many alternatives a token; None: no log-probabilities."""
    if not 0 <= top <= MAX_TOP_LOGPROBS:
        raise InvalidRequest(f"top_logprobs must be between 0 and {MAX_TOP_LOGPROBS}", param="top_logprobs")
    return top if wanted else None


def read_keep_alive(value: object) -> float | None:
    """Seconds from a number of seconds or Go's duration text; negative means for ever, None leaves it as it is."""
    match value:
        case None:
            return None
        case bool() | list() | dict():
            raise InvalidRequest(f"Unsupported type: '{json_kind(value)}'", param="keep_alive", code="invalid_type")
        case int() | float():
            return float(value)
        case _:
            try:
                return parse_duration(str(value))
            except ValueError as error:
                raise InvalidRequest(str(error), param="keep_alive") from error


def _no_shift(shift: bool | None) -> tuple[str, ...]:
    """No engine of ours slides its context: an answer that fills it ends with `length`, as `shift: false` asks."""
    return ("shift",) if shift else ()


# ---------------------------------------------------------------------------------------------------- events to objects


class Turn:
    """One answer, event by event. `chat`: the shape of `/api/chat` (a message), else that of `/api/generate`.

    `keep_context`: the last object holds the token ids of prompt and answer, if these are all of the prompt.
    """

    def __init__(self, model: str, *, chat: bool, keep_context: bool = False) -> None:
        self._model = model
        self._chat = chat
        self._keep_context = keep_context
        self._calls: list[tuple[str, str, list[str]]] = []
        self.started: Started | None = None
        self._finished: Finished | None = None

    def object_of(self, event: Event) -> JsonObject | None:
        """The object that tells `event`; None if there is nothing to tell yet."""
        match event:
            case TextDelta():
                return self._piece(text=event.text, logprobs=event.logprobs)
            case ThinkingDelta():
                return self._piece(thinking=event.text, logprobs=event.logprobs)
            case ToolCallStart():
                self._calls.append((event.id, event.name, []))
            case ToolCallDelta():
                self._calls[event.call][2].append(event.arguments)
            case Started():
                self.started = event
            case Finished():
                self._finished = event
                if self._calls:
                    return self._piece(calls=self._calls)
            case Done():
                return self._last(event)
        return None

    def _piece(
        self,
        *,
        text: str = "",
        thinking: str = "",
        calls: list[tuple[str, str, list[str]]] | None = None,
        logprobs: tuple[TokenLogprob, ...] = (),
        done: bool = False,
    ) -> JsonObject:
        piece: JsonObject = {"content" if self._chat else "response": text}
        if thinking:
            piece["thinking"] = thinking
        if calls:
            piece["tool_calls"] = [
                _call_object(index, identity, name, "".join(arguments))
                for index, (identity, name, arguments) in enumerate(calls)
            ]
        head: JsonObject = {"model": self._model, "created_at": timestamp()}
        if self._chat:
            head["message"] = {"role": "assistant", **piece}
        else:
            head.update(piece)
        head["done"] = done
        if logprobs:
            head["logprobs"] = [_logprob(item) for item in logprobs]
        return head

    def _last(self, done: Done) -> JsonObject:
        last = self._piece(done=True)
        finished, started = self._finished, self.started
        last["done_reason"] = "length" if finished is not None and finished.reason == "length" else "stop"
        # A prompt with images has no ids to go on from.
        if self._keep_context and started is not None and started.prompt_tokens and finished is not None:
            last["context"] = [*started.prompt_tokens, *finished.tokens]
        if finished is not None and finished.parse_error is not None:
            last["tool_call_parse_error"] = finished.parse_error
        if started is not None and started.dropped_messages:
            last["truncated"] = True
            last["truncated_messages"] = started.dropped_messages
        metrics = {
            "total_duration": done.timings.total,
            "load_duration": done.timings.load,
            "prompt_eval_count": done.usage.prompt,
            "prompt_eval_duration": done.timings.prompt,
            "eval_count": done.usage.completion,
            "eval_duration": done.timings.decode,
        }
        last.update({key: value for key, value in metrics.items() if value})
        return last


def merged(objects: list[JsonObject]) -> JsonObject:
    """The objects of one stream as a single answer: texts and log-probabilities joined, the rest as the last has it."""
    whole = dict(objects[-1])
    holders = [cast("JsonObject", item.get("message", item)) for item in objects]
    holder = dict(holders[-1])
    for key in ("content", "response", "thinking"):
        text = "".join(cast(str, item[key]) for item in holders if key in item)
        if text or key in holder:
            holder[key] = text
    calls = [call for item in holders for call in cast("list[JsonValue]", item.get("tool_calls", []))]
    if calls:
        holder["tool_calls"] = calls
    if "message" in whole:
        whole["message"] = holder
    else:
        whole = holder
    logprobs = [entry for item in objects for entry in cast("list[JsonValue]", item.get("logprobs", []))]
    if logprobs:
        whole["logprobs"] = logprobs
    return whole


def idle_object(model: str, reason: str, *, chat: bool) -> JsonObject:
    """The answer to a request without a prompt: the model was loaded, or is to be unloaded."""
    body: JsonObject = {"message": {"role": "assistant", "content": ""}} if chat else {"response": ""}
    return {"model": model, "created_at": timestamp(), **body, "done": True, "done_reason": reason}


def timestamp() -> str:
    """Now, in RFC 3339 and UTC."""
    return datetime.now(timezone.utc).isoformat().replace("+00:00", "Z")


def _call_object(index: int, identity: str, name: str, arguments: str) -> JsonObject:
    return {"id": identity, "function": {"index": index, "name": name, "arguments": _arguments(arguments)}}


def _arguments(text: str) -> JsonValue:
    """Ollama's clients want an object. What is none (a custom tool's free text) stands under `input`."""
    try:
        value: JsonValue = json.loads(text) if text else {}
    except ValueError:
        return {"input": text}
    return value if isinstance(value, dict) else {"input": value}


def _logprob(item: TokenLogprob) -> JsonObject:
    shape = _candidate(item.chosen)
    if item.top:
        shape["top_logprobs"] = [_candidate(candidate) for candidate in item.top]
    return shape


def _candidate(candidate: Candidate) -> JsonObject:
    text = candidate.data.decode("utf-8", "replace")
    return {"token": text, "logprob": candidate.logprob, "bytes": list(candidate.data)}


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
