"""The words that every room shares: messages, requests, options, events, usage, progress. Frozen values, no I/O.

A dialect converts its own shapes to these at its border and back; nothing below `server/` knows a dialect.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, fields, replace
from typing import Literal, TypeAlias

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"
JsonObject: TypeAlias = "dict[str, JsonValue]"

# ------------------------------------------------------------------------------------------------------- messages

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class TextPart:
    """Text in a message."""

    text: str


@dataclass(frozen=True, slots=True)
class ImagePart:
    """Encoded image bytes (png, jpeg, webp), as they came."""

    data: bytes


@dataclass(frozen=True, slots=True)
class AudioPart:
    """Encoded audio bytes (wav, mp3, flac)."""

    data: bytes


Part: TypeAlias = TextPart | ImagePart | AudioPart

MEDIA_MARKER = "<__media__>"
"""Stands in the text of a prompt for each image or sound, in order."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that a model made. `arguments` is JSON text of an object, or free text for a custom tool.

    Of a call that was cut it is only the beginning of that (see `puna.chat.turns.unreadable`).
    """

    id: str
    name: str
    arguments: str
    kind: Literal["function", "custom"] = "function"


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. `name` is the speaker, or for role `tool` the tool's name; `tool_call_id` the call it answers."""

    role: Role
    content: tuple[Part, ...] = ()
    name: str | None = None
    thinking: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None

    @property
    def text(self) -> str:
        """The text parts, joined with newlines."""
        return "\n".join(part.text for part in self.content if isinstance(part, TextPart))

    @classmethod
    def of(cls, role: Role, text: str) -> Message:
        return cls(role, (TextPart(text),))


# ---------------------------------------------------------------------------------------------------------- tools


@dataclass(frozen=True, slots=True)
class Grammar:
    """A grammar a caller wrote himself."""

    syntax: Literal["gbnf", "lark", "regex"]
    text: str


@dataclass(frozen=True, slots=True)
class Tool:
    """What a model may call.

    `parameters` is a JSON Schema (None: any object). A custom tool takes free text, shaped by `grammar` if given.
    """

    name: str
    description: str = ""
    parameters: JsonObject | None = None
    strict: bool = False
    kind: Literal["function", "custom"] = "function"
    grammar: Grammar | None = None


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """Whether a model must call a tool, and which.

    `required` must call; `names` limits the calls to these tools (None: any of them).
    """

    mode: Literal["none", "auto", "required"] = "auto"
    names: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class JsonOutput:
    """The answer is one JSON text. `schema` None: any object."""

    schema: JsonObject | None = None


Output: TypeAlias = JsonOutput | Grammar

# -------------------------------------------------------------------------------------------------------- options


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Sampling and load settings. None: not said, so the next source decides (see `over`).

    Load settings (`num_ctx` … `use_mmap`) choose the Runner; the rest travels with each request. Names and meaning are
    Ollama's where it has one.
    """

    # load
    num_ctx: int | None = None
    num_batch: int | None = None
    num_thread: int | None = None
    num_gpu: int | None = None
    main_gpu: int | None = None
    use_mmap: bool | None = None
    # how long
    num_predict: int | None = None  # tokens at most; -1: until it stops or the context is full
    num_keep: int | None = None
    stop: tuple[str, ...] | None = None
    ignore_eos: bool | None = None
    # which token
    seed: int | None = None  # -1 or None: random
    temperature: float | None = None
    top_k: int | None = None  # 0: off
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repeat_last_n: int | None = None  # -1: the whole context
    repeat_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    mirostat: int | None = None
    mirostat_tau: float | None = None
    mirostat_eta: float | None = None
    logit_bias: tuple[tuple[int, float], ...] | None = None

    def over(self, base: Options) -> Options:
        """These, and what they leave unsaid from `base`."""
        if base is NO_OPTIONS:
            return self
        said = {name: value for name in _OPTION_NAMES if (value := getattr(self, name)) is not None}
        return replace(base, **said) if said else base


_OPTION_NAMES = tuple(field.name for field in fields(Options))

MOST_CONTEXT = 2**31 - 1
"""Tokens that an engine can count."""

NO_OPTIONS = Options()
"""Nothing said."""

DEFAULT_OPTIONS = Options(
    num_predict=-1,
    num_keep=4,
    stop=(),
    ignore_eos=False,
    temperature=0.8,
    top_k=40,
    top_p=0.9,
    min_p=0.0,
    typical_p=1.0,
    repeat_last_n=64,
    repeat_penalty=1.0,
    presence_penalty=0.0,
    frequency_penalty=0.0,
    mirostat=0,
    mirostat_tau=5.0,
    mirostat_eta=0.1,
    logit_bias=(),
)
"""The last source of every sampling setting: Ollama's defaults. Source: reference of its native API."""

# ------------------------------------------------------------------------------------------------------- requests

Level: TypeAlias = Literal["minimal", "low", "medium", "high", "max"]
Think: TypeAlias = bool | Level


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """A conversation to be answered.

    `logprobs` None: none; k: each token's and those of k alternatives. `keep_alive` seconds, None: unchanged.

    `truncate`: when the messages do not fit the context, old turns may be left out (Ollama's native rule); the answer
    then says so (`Started.dropped_messages`). False: refuse with ContextLengthExceeded.
    `prefill`: the last assistant message is continued, not answered.
    `think_if_able`: a model that cannot think answers without, and `Started.ignored` says so. Else it is refused.
    `think_budget`: tokens of thinking at most; then the thought is closed and the answer goes on.
    `context`: token ids of an earlier prompt and answer, put before this prompt; the model's stored messages are then
    left out (Ollama's `generate`).
    `cache_key`: requests of the same key are likely to begin alike (see `puna.engine.runner.Prompt`).
    `prediction`: text that the answer is expected to hold. It changes how soon the answer comes, and none of it.
    """

    model: str
    messages: tuple[Message, ...]
    options: Options = field(default_factory=Options)
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = field(default_factory=ToolChoice)
    parallel_tool_calls: bool = True
    output: Output | None = None
    think: Think | None = None
    think_if_able: bool = False
    think_budget: int | None = None
    n: int = 1
    logprobs: int | None = None
    keep_alive: float | None = None
    truncate: bool = False
    prefill: bool = False
    template_arguments: Mapping[str, JsonValue] = field(default_factory=dict)
    template: str | None = None  # replaces the model's own for this request
    context: tuple[int, ...] = ()
    cache_key: str | None = None
    prediction: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionRequest:
    """Continue each prompt as it is, without the chat template. A prompt is text, or token ids.

    `suffix`: fill in the middle. `echo` puts the prompt before the answer (with `logprobs`: scored). Of `best_of`
    answers the `n` best are given. Choices are numbered prompt by prompt: prompt i has choices i*n … i*n+n-1.
    """

    model: str
    prompts: tuple[str | tuple[int, ...], ...]
    options: Options = field(default_factory=Options)
    suffix: str | None = None
    echo: bool = False
    n: int = 1
    best_of: int | None = None
    output: Output | None = None
    logprobs: int | None = None
    keep_alive: float | None = None
    cache_key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedRequest:
    """Texts to be made into vectors.

    `truncate` False: an input over the limit is refused with its index. `dimensions` None: all.
    """

    model: str
    inputs: tuple[str | tuple[int, ...], ...]
    options: Options = field(default_factory=Options)
    dimensions: int | None = None
    truncate: bool = False
    keep_alive: float | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of a conversation, and the texts of which one is the answer: two at least, no two alike."""

    text: str
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionRequest:
    """Questions that are asked of one conversation, each by itself. Nothing is generated."""

    model: str
    messages: tuple[Message, ...]
    questions: tuple[Question, ...]
    options: Options = field(default_factory=Options)
    keep_alive: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RankRequest:
    """Documents that may answer a query. `most`: tokens that a document is cut to; None: it is not cut.

    `truncate` False: a pair over the limit is refused by its document's index; else the document is cut.
    """

    model: str
    query: str
    documents: tuple[str, ...]
    options: Options = field(default_factory=Options)
    keep_alive: float | None = None
    truncate: bool = False
    most: int | None = None


# --------------------------------------------------------------------------------------------------------- events

FinishReason = Literal["stop", "length", "tool_calls"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A token that was, or could have been, next. `logprob` is natural, over the whole vocabulary.

    NaN: it has none, being the first token of an echoed prompt.
    """

    token: int
    data: bytes
    logprob: float


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """How likely a token was, beside those that could have been."""

    chosen: Candidate
    top: tuple[Candidate, ...] = ()


@dataclass(frozen=True, slots=True)
class Timings:
    """Durations in nanoseconds."""

    total: int = 0
    load: int = 0
    prompt: int = 0
    decode: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens. `prompt` counts the cached ones too; over all choices, a prompt that choices share counts once.

    `predicted`: tokens of the request's prediction that appeared in its choices; `unpredicted`: those that did not.
    """

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    reasoning: int = 0
    predicted: int = 0
    unpredicted: int = 0


@dataclass(frozen=True, slots=True)
class Started:
    """First event: the model is loaded, the prompt fits, the work is under way.

    `seed_exact`: this engine repeats a seeded answer byte for byte. `fingerprint` changes with model, engine and load
    settings. `dropped_messages`: how many old turns `truncate` left out. `ignored`: fields of the request that had no
    effect, by the names of this page (`think`, `num_keep`, `tools[0].parameters`). `ignored_parameters`: names of the
    model's stored parameters without effect.
    """

    model: str
    engine: str
    fingerprint: str
    seed_exact: bool
    num_ctx: int
    prompt_tokens: tuple[int, ...] = ()
    dropped_messages: int = 0
    ignored: tuple[str, ...] = ()
    ignored_parameters: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More text of a choice."""

    index: int
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class ThinkingDelta:
    """More thinking of a choice."""

    index: int
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class ToolCallStart:
    """Call number `call` of choice `index` begins; its arguments follow as ToolCallDelta.

    `written`: what the model wrote of it before the arguments, for whom it is text after all.
    """

    index: int
    call: int
    id: str
    name: str
    kind: Literal["function", "custom"] = "function"
    written: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """More of the arguments of a call."""

    index: int
    call: int
    arguments: str


@dataclass(frozen=True, slots=True)
class Finished:
    """A choice ended. `tokens`: all ids it generated. `stop`: the stop string that ended it, if one did.

    `parse_error`: the model's tool call could not be read; its text was given as text.
    """

    index: int
    reason: FinishReason
    tokens: tuple[int, ...] = ()
    stop: str | None = None
    parse_error: str | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """Last event."""

    usage: Usage
    timings: Timings


Event: TypeAlias = Started | TextDelta | ThinkingDelta | ToolCallStart | ToolCallDelta | Finished | Done

Answer: TypeAlias = AbstractAsyncContextManager[AsyncIterator[Event]]
"""An answer's events, for as long as it is entered. Leaving it ends the work."""


@dataclass(frozen=True, slots=True)
class Embeddings:
    """One L2-normalised vector an input, in order. `truncated`: indexes of the inputs that were cut to the limit.

    `ignored` and `ignored_parameters` as in Started.
    """

    vectors: tuple[tuple[float, ...], ...]
    prompt_tokens: int
    timings: Timings
    truncated: tuple[int, ...] = ()
    ignored: tuple[str, ...] = ()
    ignored_parameters: tuple[str, ...] = ()

    @property
    def numbers(self) -> int:
        """How many there are in all vectors."""
        return sum(map(len, self.vectors))


@dataclass(frozen=True, slots=True)
class Decisions:
    """For each question, how likely each of its labels is to be the answer, if one of them is: together 1.

    `ignored` and `ignored_parameters` as in Started.
    """

    probabilities: tuple[tuple[float, ...], ...]
    usage: Usage
    timings: Timings
    ignored: tuple[str, ...] = ()
    ignored_parameters: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ranking:
    """The logarithm of the odds that each document answers the query, in order. `truncated`: documents that were cut.

    `ignored` and `ignored_parameters` as in Started.
    """

    log_odds: tuple[float, ...]
    prompt_tokens: int
    timings: Timings
    truncated: tuple[int, ...] = ()
    ignored: tuple[str, ...] = ()
    ignored_parameters: tuple[str, ...] = ()


# ------------------------------------------------------------------------------------------------------- progress


@dataclass(frozen=True, slots=True)
class Progress:
    """One step of a long job. `digest`, `total`, `completed` (bytes) where the step moves a blob."""

    status: str
    digest: str | None = None
    total: int | None = None
    completed: int | None = None
