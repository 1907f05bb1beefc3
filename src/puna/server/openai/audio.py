"""/v1/audio/transcriptions and translations: their contract, the chat that they are, and what becomes of its answer.

A model that hears is asked to write down what is said. It tells no times, so none are made up: what asks for them
(`timestamp_granularities`) is refused, and a file of subtitles has one, as long as the sound.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field
from starlette.responses import PlainTextResponse, Response

from puna.errors import EngineError, InvalidRequest, Unsupported
from puna.server.body import JsonReply, dump_text
from puna.server.contract.converted import Converted
from puna.server.contract.forms import FormBoolean, FormInteger, FormNumber
from puna.server.contract.names import FieldNames
from puna.server.contract.options import read_keep_alive, within
from puna.server.contract.report import Report
from puna.server.contract.shapes import Honoured, JsonObject, JsonValue, Refused, Reported, Shape
from puna.server.openai.chat import bounded, token_text
from puna.server.openai.frames import frames
from puna.server.sounds import sound_seconds
from puna.server.streaming import sse_data
from puna.types import (
    Answer,
    AudioPart,
    ChatRequest,
    Done,
    Event,
    Finished,
    Message,
    Options,
    Started,
    TextDelta,
    TextPart,
    TokenLogprob,
    Usage,
)

_NO_SPEAKERS = "Models here tell no speakers apart."
_Words = Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=100)]


class _SoundForm(Shape):
    model: Annotated[str, Field(min_length=1), Honoured("The Name of a model that hears, as `puna list` shows it.")]
    prompt: Annotated[
        str | None, Honoured("What the sound is about or goes on from, how names are spelled: the model reads it.")
    ] = None
    response_format: Annotated[
        Literal["json", "text", "srt", "verbose_json", "vtt", "diarized_json"] | None,
        Honoured(
            "`srt` and `vtt` have one subtitle, and `verbose_json` no segments: models here tell no times. "
            "`diarized_json` is refused."
        ),
    ] = None
    temperature: Annotated[FormNumber | None, Field(ge=0, le=1), Honoured("Default 0: the likeliest words.")] = None
    keep_alive: Annotated[
        str | None, Honoured("How long the model stays loaded: a duration such as `5m`; negative: for ever.")
    ] = None
    num_ctx: Annotated[FormInteger | None, within("num_ctx"), Honoured("The context to load the model with.")] = None


class TranscriptionForm(_SoundForm):
    """POST /v1/audio/transcriptions"""

    language: Annotated[str | None, Field(max_length=50), Honoured("Of the sound; the model is told.")] = None
    languages: Annotated[_Words | None, Honoured("Of which the sound's language is one; the model is told.")] = None
    keywords: Annotated[_Words | None, Honoured("Words that may be said; the model is told.")] = None
    include: Annotated[
        list[Literal["logprobs"]] | None, Honoured("`logprobs`, with `json`: of each token of the text.")
    ] = None
    stream: Annotated[FormBoolean | None, Honoured("Events of the text as it comes; with `json` or `text`.")] = None
    timestamp_granularities: Annotated[
        JsonValue, Refused("Models here tell no times of words or segments, and none are made up.", harmless=([],))
    ] = None
    chunking_strategy: Annotated[JsonValue, Reported("A sound is read as one block.")] = None
    known_speaker_names: Annotated[JsonValue, Refused(_NO_SPEAKERS, harmless=([],))] = None
    known_speaker_references: Annotated[JsonValue, Refused(_NO_SPEAKERS, harmless=([],))] = None


class TranslationForm(_SoundForm):
    """POST /v1/audio/translations"""


SoundForm: TypeAlias = TranscriptionForm | TranslationForm
FORMS: tuple[type[Shape], ...] = (TranscriptionForm, TranslationForm)

# -------------------------------------------------------------------------------------------------- what they become

_WRITE = "Write down what is said in this recording, word for word. Write nothing else."
_TRANSLATE = "Write down in English what is said in this recording. Write nothing but the translation."


def to_sound_chat(form: SoundForm, sound: bytes) -> Converted[ChatRequest]:
    """`sound`: as engines read it."""
    _check(form)
    parts = (AudioPart(sound), TextPart("\n".join(_told(form))))
    request = ChatRequest(
        model=form.model,
        messages=(Message("user", parts),),
        options=Options(temperature=form.temperature or 0.0, num_ctx=form.num_ctx),
        think=False,
        logprobs=0 if _logprobs(form) else None,
        keep_alive=read_keep_alive(form.keep_alive),
    )
    return Converted(request, names=FieldNames({"messages[].content[]": "file", "messages": "file"}))


def _check(form: SoundForm) -> None:
    if form.response_format == "diarized_json":
        raise Unsupported(f"Unsupported value: 'diarized_json'. {_NO_SPEAKERS}", param="response_format")
    if not isinstance(form, TranscriptionForm):
        return
    plain = form.response_format in {None, "json", "text"}
    if form.stream and not plain:
        raise Unsupported(
            f"'{form.response_format}' cannot be streamed: it is known when the sound has been heard.", param="stream"
        )
    if _logprobs(form) and form.response_format not in {None, "json"}:
        raise InvalidRequest("'include' logprobs needs the response_format 'json'.", param="include")


def _logprobs(form: SoundForm) -> bool:
    return isinstance(form, TranscriptionForm) and "logprobs" in (form.include or ())


def _told(form: SoundForm) -> Iterable[str]:
    yield _WRITE if isinstance(form, TranscriptionForm) else _TRANSLATE
    if isinstance(form, TranscriptionForm):
        if form.language:
            yield f"The language is: {form.language}"
        if form.languages:
            yield f"The language is one of: {', '.join(form.languages)}"
        if form.keywords:
            yield f"These words may be said: {', '.join(form.keywords)}"
    if form.prompt:
        yield f"This may help: {form.prompt}"


# ---------------------------------------------------------------------------------------------------------- answers


@dataclass(slots=True)
class Heard:
    """What has been written down so far."""

    text: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()
    usage: Usage | None = None

    def take(self, event: Event) -> None:
        match event:
            case TextDelta():
                self.text += event.text
                self.logprobs += event.logprobs
            case Done():
                self.usage = event.usage


async def heard(answer: Answer, form: SoundForm, data: bytes, report: Report) -> Response:
    """The whole answer, in the format that was asked for."""
    told = Heard()
    async with report.reading(answer) as events:
        async for event in events:
            if isinstance(event, Started):
                report.start(event)
            if _is_cut(event):
                report.cut()
            told.take(event)
    text, seconds = told.text.strip(), sound_seconds(data)
    match form.response_format:
        case "text":
            return PlainTextResponse(f"{text}\n")
        case "srt":
            return PlainTextResponse(f"1\n{_clock(0, ',')} --> {_clock(seconds, ',')}\n{text}\n\n")
        case "vtt":
            return PlainTextResponse(f"WEBVTT\n\n{_clock(0, '.')} --> {_clock(seconds, '.')}\n{text}\n\n")
        case "verbose_json":
            return JsonReply(_verbose(form, text, seconds))
    whole: JsonObject = {"text": text}
    if _logprobs(form):
        whole["logprobs"] = _logprobs_json(told.logprobs)
    return JsonReply(whole | {"usage": _usage(told)})


def _verbose(form: SoundForm, text: str, seconds: float) -> JsonObject:
    """The language is what was said to be spoken: the model does not tell it apart from the text."""
    transcribed = isinstance(form, TranscriptionForm)
    language = (form.language or "unknown") if isinstance(form, TranscriptionForm) else "english"
    return {
        "task": "transcribe" if transcribed else "translate",
        "language": language,
        "duration": seconds,
        "text": text,
        "usage": {"type": "duration", "seconds": seconds},
    }


def stream(answer: Answer, form: TranscriptionForm, report: Report) -> AsyncGenerator[bytes, None]:
    """Frames of OpenAI's events."""
    return frames(answer, lambda _: _SoundEvents(_logprobs(form), report), report)


class _SoundEvents:
    def __init__(self, logprobs: bool, report: Report) -> None:
        self._told = Heard()
        self._logprobs = logprobs
        self._report = report

    def frame(self, event: Event) -> bytes:
        self._told.take(event)
        if _is_cut(event):
            return self._report.cut()
        match event:
            case TextDelta():
                return self._event("transcript.text.delta", {"delta": event.text}, event.logprobs)
            case Done():
                done: JsonObject = {"text": self._told.text, "usage": _usage(self._told)}
                return self._event("transcript.text.done", done, self._told.logprobs)
        return b""

    def _event(self, type_: str, fields: JsonObject, logprobs: tuple[TokenLogprob, ...]) -> bytes:
        if self._logprobs:
            fields |= {"logprobs": _logprobs_json(logprobs)}
        return sse_data(dump_text({"type": type_, **fields}))


def _is_cut(event: Event) -> bool:
    """None of OpenAI's forms of a transcription has a place for it."""
    return isinstance(event, Finished) and event.reason == "length"


def _logprobs_json(entries: Iterable[TokenLogprob]) -> list[JsonValue]:
    chosen: list[Any] = [entry.chosen for entry in entries]
    return [{"token": token_text(one.data), "logprob": bounded(one.logprob), "bytes": list(one.data)} for one in chosen]


def _usage(told: Heard) -> JsonObject:
    """How many of the tokens are of the sound no engine tells, so nothing is said."""
    if told.usage is None:
        raise EngineError("the engine gave no whole answer")
    prompt, completion = told.usage.prompt, told.usage.completion
    return {
        "type": "tokens",
        "input_tokens": prompt,
        "output_tokens": completion,
        "total_tokens": prompt + completion,
    }


def _clock(seconds: float, point: str) -> str:
    whole = round(seconds * 1000)
    return f"{whole // 3_600_000:02}:{whole // 60_000 % 60:02}:{whole // 1000 % 60:02}{point}{whole % 1000:03}"
