"""Events to Ollama's objects: the lines of a stream, or one answer. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import cast

from puna.server.body import dump_line, dump_string, one_line
from puna.template.shaping import arguments_json
from puna.types import (
    Candidate,
    Done,
    Embeddings,
    Event,
    Finished,
    JsonObject,
    JsonValue,
    Started,
    TextDelta,
    ThinkingDelta,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    ToolCallStart,
)


@dataclass(slots=True)
class _Call:
    """A call as it comes."""

    start: ToolCallStart
    arguments: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return self.start.written + "".join(self.arguments)

    @property
    def value(self) -> JsonObject | None:
        """Its arguments, if they are an object."""
        call = ToolCall(self.start.id, self.start.name, "".join(self.arguments))
        value = arguments_json(call)
        return value if isinstance(value, dict) else None


class Turn:
    """One answer, event by event. `chat`: the shape of `/api/chat` (a message), else that of `/api/generate`.

    `keep_context`: the last object holds the token ids of prompt and answer, if these are all of the prompt.
    """

    def __init__(self, model: str, *, chat: bool, keep_context: bool = False) -> None:
        self._model = model
        self._chat = chat
        self._keep_context = keep_context
        self._calls: list[_Call] = []
        self.started: Started | None = None
        self._finished: Finished | None = None
        self._before = f'{{"model":{dump_string(model)},"created_at":"'
        self._between = '","message":{"role":"assistant","content":' if chat else '","response":'
        self._after = '},"done":false}\n' if chat else ',"done":false}\n'

    def line_of(self, event: Event) -> bytes | None:
        """The line of a stream that tells `event`. Of plain text, which comes with every token, all else is written."""
        if isinstance(event, TextDelta) and not event.logprobs:
            line = f"{self._before}{timestamp()}{self._between}{one_line(dump_string(event.text))}{self._after}"
            return line.encode("utf-8", "replace")
        item = self.object_of(event)
        return None if item is None else dump_line(item)

    def object_of(self, event: Event) -> JsonObject | None:
        """The object that tells `event`; None if there is nothing to tell yet."""
        match event:
            case TextDelta():
                return self._piece(text=event.text, logprobs=event.logprobs)
            case ThinkingDelta():
                return self._piece(thinking=event.text, logprobs=event.logprobs)
            case ToolCallStart():
                self._calls.append(_Call(event))
            case ToolCallDelta():
                self._calls[event.call].arguments.append(event.arguments)
            case Started():
                self.started = event
            case Finished():
                self._finished = event
                if self._calls:
                    return self._called()
            case Done():
                return self._last(event)
        return None

    def _called(self) -> JsonObject:
        """Calls, whose arguments are objects here: one that was cut or cannot be read is the text that was written."""
        text = "".join(call.text for call in self._calls if call.value is None)
        calls = [(call, call.value) for call in self._calls if call.value is not None]
        return self._piece(
            text=text, calls=[_call_object(index, call.start, value) for index, (call, value) in enumerate(calls)]
        )

    def _piece(
        self,
        *,
        text: str = "",
        thinking: str = "",
        calls: list[JsonValue] | None = None,
        logprobs: tuple[TokenLogprob, ...] = (),
        done: bool = False,
    ) -> JsonObject:
        piece: JsonObject = {"content" if self._chat else "response": text}
        if thinking:
            piece["thinking"] = thinking
        if calls:
            piece["tool_calls"] = calls
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


def embeddings_object(model: str, embeddings: Embeddings) -> JsonObject:
    """The answer of `/api/embed`."""
    whole: JsonObject = {
        "model": model,
        "embeddings": [list(vector) for vector in embeddings.vectors],
        "total_duration": embeddings.timings.total,
        "load_duration": embeddings.timings.load,
        "prompt_eval_count": embeddings.prompt_tokens,
    }
    if embeddings.truncated:
        whole["truncated"] = list(embeddings.truncated)
    return whole


def timestamp() -> str:
    """Now, in RFC 3339 and UTC."""
    return datetime.now(timezone.utc).isoformat().replace("+00:00", "Z")


def _call_object(index: int, start: ToolCallStart, arguments: JsonObject) -> JsonObject:
    return {"id": start.id, "function": {"index": index, "name": start.name, "arguments": arguments}}


def _logprob(item: TokenLogprob) -> JsonObject:
    shape = _candidate(item.chosen)
    if item.top:
        shape["top_logprobs"] = [_candidate(candidate) for candidate in item.top]
    return shape


def _candidate(candidate: Candidate) -> JsonObject:
    text = candidate.data.decode("utf-8", "replace")
    return {"token": text, "logprob": candidate.logprob, "bytes": list(candidate.data)}
