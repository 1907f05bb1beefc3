"""The scripted engine: a script decides the tokens. For protocol tests, ours and other people's; never a fallback.

Deterministic: the same requests in the same order give the same tokens, ids, log-probabilities and vectors. It keeps
the Runner contract like any engine: slots, waiting, cancellation within one token, death with a cause. Sampling and
constraints are recorded (`End.settings`), not applied: the script alone says what is answered. The script's format is
documented in `docs/reference/scripted-engine.md`.

Its vocabulary: ids 0–255 are the bytes, then `CONTROL`, then `MARKERS`, then each longer piece that a script's answers
hold, in the order they are met. Text is tokenised byte by byte, whatever the pieces.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
from collections.abc import AsyncIterator, Hashable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import count, groupby, islice
from pathlib import Path
from typing import ClassVar, Literal

import pydantic
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from puna import __version__
from puna.engine.engine import Engine, ModelFacts, Opinion, Profile, Unprepared
from puna.engine.memory import Costs, Estimate, estimate
from puna.engine.runner import (
    Constraint,
    End,
    Feature,
    LoadOptions,
    ModelFiles,
    Prefilled,
    Prompt,
    Ranked,
    Runner,
    RunnerInfo,
    Sampling,
    Step,
    Token,
    Weighed,
)
from puna.errors import Code, ContextLengthExceeded, InvalidRequest, LoadFailed, LoadTimeout, RunnerDied
from puna.lane import in_lane
from puna.model.markup import Markup
from puna.settings import Settings
from puna.types import Candidate, JsonObject

CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<s>", "</s>")
"""Tokens without text of their own; generated, their bytes are empty."""

MARKERS = ("<think>", "</think>", "<tool_call>", "</tool_call>")
"""Single tokens that are visible text."""

END_OF_ANSWER = ("<|endoftext|>", "<|im_end|>", "</s>")


class ScriptError(InvalidRequest):
    """The script cannot be read."""

    default_code: ClassVar[Code | None] = "invalid_script"


# --------------------------------------------------------------------------------------------------------- script


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ScriptedCall(_Part):
    name: str
    arguments: pydantic.JsonValue = Field(default_factory=dict)


class Failure(_Part):
    """The runner dies of `message` when `after` tokens of the answer have gone out."""

    after: int = Field(default=0, ge=0)
    message: str = "scripted failure"


class ScriptedAnswer(_Part):
    """Parts go out in this order: thinking, text or tokens or echo, tool_calls."""

    thinking: str | None = None
    text: str | None = None
    tokens: list[str | list[int]] | None = None
    echo: Literal["prompt", "sampling", "constraint"] | None = None
    tool_calls: list[ScriptedCall] = Field(default_factory=list)
    repeat: bool = False
    finish: Literal["stop", "length"] = "stop"
    error: Failure | None = None
    delay: float = Field(default=0.0, ge=0)
    prompt_delay: float = Field(default=0.0, ge=0)
    logprobs: list[float] = Field(default_factory=list)
    choices: list[ScriptedAnswer] = Field(default_factory=list)


class When(_Part):
    """All that is said must hold. `model` is a shell pattern, `pattern` a regular expression searched in the prompt."""

    model: str | None = None
    contains: str | None = None
    pattern: re.Pattern[str] | None = None
    constrained: bool | None = None

    def holds(self, model: str, prompt: str, constrained: bool) -> bool:
        return (
            (self.model is None or fnmatchcase(model, self.model))
            and (self.contains is None or self.contains in prompt)
            and (self.pattern is None or self.pattern.search(prompt) is not None)
            and (self.constrained is None or self.constrained == constrained)
        )


class Rule(_Part):
    when: When = Field(default_factory=When)
    answer: ScriptedAnswer


class ModelRule(_Part):
    """How models whose name fits the shell pattern `match` load and what they claim to be."""

    match: str = "*"
    load_delay: float = Field(default=0.0, ge=0)
    load_error: str | None = None
    missing: bool = False
    bos: bool = False
    seed_exact: bool = True
    embedding_length: int = Field(default=8, ge=1)
    without: list[str] = Field(default_factory=list)


class Script(_Part):
    """The first rule that holds answers; none: `default`. The first model rule that fits counts."""

    rules: list[Rule] = Field(default_factory=list)
    default: ScriptedAnswer = Field(default_factory=lambda: ScriptedAnswer(text="Hello!"))
    models: list[ModelRule] = Field(default_factory=list)

    @classmethod
    def parse(cls, text: str | bytes) -> Script:
        """JSON text to a Script. ScriptError names the place at fault."""
        try:
            script = cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(item) for item in first["loc"]) or "the top level"
            raise ScriptError(f"script: {where}: {first['msg']}") from error
        script._check()
        return script

    @classmethod
    def read(cls, path: Path) -> Script:
        try:
            return cls.parse(path.read_bytes())
        except OSError as error:
            raise ScriptError(f"script {path}: {error.strerror or error}") from error

    def answer(self, model: str, prompt: str, constrained: bool, seed: int) -> ScriptedAnswer:
        """The answer that the first holding rule gives; of several `choices` the seed picks."""
        holding = (rule.answer for rule in self.rules if rule.when.holds(model, prompt, constrained))
        answer = next(holding, self.default)
        return answer.choices[seed % len(answer.choices)] if answer.choices else answer

    def model(self, name: str) -> ModelRule:
        return next((rule for rule in self.models if fnmatchcase(name, rule.match)), ModelRule())

    def answers(self) -> Iterator[ScriptedAnswer]:
        """Every answer, in the order written."""
        for top in (*(rule.answer for rule in self.rules), self.default):
            yield top
            yield from top.choices

    def _check(self) -> None:
        for answer in self.answers():
            sources = [answer.text is not None, answer.tokens is not None, answer.echo is not None]
            if sum(sources) > 1:
                raise ScriptError("script: an answer has one of text, tokens and echo")
            if any(not 0 <= byte <= 255 for item in answer.tokens or () if not isinstance(item, str) for byte in item):
                raise ScriptError("script: tokens: a list of bytes holds numbers from 0 to 255")
        features = {feature.value for feature in Feature}
        for name in (name for model in self.models for name in model.without):
            if name not in features:
                raise ScriptError(f"script: without: {name!r} is none of {', '.join(sorted(features))}")


# ----------------------------------------------------------------------------------------------------- vocabulary

_PIECES = re.compile(rb"\s?\w+|[\s\S]")
_LONG = 64 * 1024
"""Bytes over which a text is cut beside the event loop, and that are cut in one go."""
_SPECIAL = re.compile("|".join(re.escape(text) for text in CONTROL + MARKERS).encode())


def split_text(data: bytes) -> list[bytes]:
    """An answer's text to pieces: a word with the blank before it, a special token, or one other byte."""
    pieces: list[bytes] = []
    end = 0
    for match in _SPECIAL.finditer(data):
        pieces += _PIECES.findall(data[end : match.start()])
        pieces.append(match[0])
        end = match.end()
    return pieces + _PIECES.findall(data[end:])


def _add(tokens: list[int], data: bytes) -> None:
    """The bytes as tokens. A little at a time: nothing else runs meanwhile."""
    for at in range(0, len(data), _LONG):
        tokens += data[at : at + _LONG]


class ScriptedVocabulary:
    """Ids and bytes. `extra`: pieces longer than a byte that a script's answers hold."""

    def __init__(self, extra: Iterable[bytes] = ()) -> None:
        self._pieces: list[bytes] = [bytes([byte]) for byte in range(256)]
        self._pieces += [text.encode() for text in CONTROL + MARKERS]
        self._pieces += [piece for piece in dict.fromkeys(extra) if len(piece) > 1 and piece not in self._pieces]
        self._ids = {piece: id_ for id_, piece in enumerate(self._pieces)}
        self.control = {text: self._ids[text.encode()] for text in CONTROL}
        self._control = frozenset(self.control.values())
        self.eos = tuple(self._ids[text.encode()] for text in END_OF_ANSWER)
        self.bos = self._ids[b"<s>"]

    def __len__(self) -> int:
        return len(self._pieces)

    def tokenize(self, data: bytes, *, special: bool) -> list[int]:
        tokens: list[int] = []
        end = 0
        for match in _SPECIAL.finditer(data) if special else ():
            _add(tokens, data[end : match.start()])
            tokens.append(self._ids[match[0]])
            end = match.end()
        _add(tokens, data[end:])
        return tokens

    def echoed(self, tokens: Sequence[int]) -> list[bytes]:
        """A prompt's pieces: its special tokens, and between them its text, cut as an answer's is."""
        pieces: list[bytes] = []
        for special, group in groupby(tokens, key=lambda token: 256 <= token < 256 + len(CONTROL + MARKERS)):
            run = [self.piece(token) for token in group]
            pieces += run if special else _PIECES.findall(b"".join(run))
        return pieces

    def ids(self, piece: bytes) -> list[int]:
        """The one id of a known piece, else the ids of its bytes."""
        known = self._ids.get(piece)
        return list(piece) if known is None else [known]

    def piece(self, token: int) -> bytes:
        if not 0 <= token < len(self._pieces):
            raise InvalidRequest(
                f"token {token} is not in the vocabulary of {len(self._pieces)} tokens", param="prompt"
            )
        return self._pieces[token]

    def data(self, token: int) -> bytes:
        """What a generated token adds to the answer."""
        return b"" if token in self._control else self._pieces[token]


def _pieces(answer: ScriptedAnswer) -> Iterator[bytes]:
    """The pieces an answer is made of, its echo left out."""
    if answer.thinking is not None:
        yield from split_text(f"<think>\n{answer.thinking}\n</think>\n\n".encode())
    if answer.text is not None:
        yield from split_text(answer.text.encode())
    for item in answer.tokens or ():
        yield item.encode() if isinstance(item, str) else bytes(item)
    for call in answer.tool_calls:
        body = json.dumps({"name": call.name, "arguments": call.arguments}, ensure_ascii=False)
        yield from split_text(f"<tool_call>\n{body}\n</tool_call>\n".encode())


# --------------------------------------------------------------------------------------------------------- engine


@dataclass(slots=True)
class _Slot:
    """`tokens`: what its last request left in the cache."""

    working: bool = False
    tokens: tuple[int, ...] = ()

    def cached(self, prompt: Sequence[int]) -> int:
        """How many leading tokens of `prompt` need no work; the last one always does."""
        same = next((i for i, (a, b) in enumerate(zip(self.tokens, prompt, strict=False)) if a != b), None)
        shared = min(len(self.tokens), len(prompt)) if same is None else same
        return min(shared, max(len(prompt) - 1, 0))


@dataclass(frozen=True, slots=True)
class _Plan:
    """What one request gets: the ids in order, and whether they come round again."""

    answer: ScriptedAnswer
    tokens: tuple[int, ...]
    repeat: bool

    def ids(self, limit: int) -> Iterator[int]:
        if not self.tokens:
            return iter(())
        many = (self.tokens[i % len(self.tokens)] for i in count()) if self.repeat else iter(self.tokens)
        return islice(many, limit)


PROFILE = Profile(
    name="scripted",
    what="a script (`PUNA_SCRIPT`), for protocol tests",
    merit="it answers from a script",
    machines="any",
    families="–",
    types="–",
    seeds="always, unless the script says otherwise",
    slots=4,
    features=frozenset(Feature),
    cache_types=frozenset({"f16", "q8_0", "q4_0"}),
    projectors=1,
    adapters=True,
    gpu=True,
)
"""It refuses nothing: what it is asked for has no effect, since it runs no model."""

COSTS = Costs(base=64 << 20, weights=1.0, token=2048, batch=512, value=None)
"""As if it were llama.cpp, for tests of who gets the memory."""


class ScriptedEngine(Unprepared):
    """Starts runners that answer from one Script."""

    name = "scripted"
    profile = PROFILE

    def __init__(self, script: Script | None = None, *, load_timeout: float = 0.0) -> None:
        """`load_timeout`: seconds for which a load may show no sign of life, 0 or less: for ever."""
        self.script = script if script is not None else Script()
        self._load_timeout = load_timeout
        self._vocabulary = ScriptedVocabulary(piece for answer in self.script.answers() for piece in _pieces(answer))

    @classmethod
    def of(cls, settings: Settings) -> Engine:
        """From the roster. InvalidRequest without a script, or when it is no good."""
        if settings.script is None:
            raise InvalidRequest("The scripted engine needs a script: set PUNA_SCRIPT.")
        return cls(Script.read(settings.script), load_timeout=settings.load_timeout)

    def obstacle(self) -> str | None:
        return None

    def opinion(self, model: ModelFacts, load: LoadOptions) -> Opinion:
        need = self.memory(model, replace(load, slots=1)).total
        return Opinion(engine=self.name, objection=None, need=need, merit=PROFILE.merit, slots=PROFILE.slots)

    def memory(self, model: ModelFacts, load: LoadOptions) -> Estimate:
        return estimate(model.layout, load, COSTS)

    async def start(self, files: ModelFiles, load: LoadOptions, *, reason: str = "") -> Runner:
        model = self.script.model(files.name)
        if 0 < self._load_timeout < model.load_delay:
            await asyncio.sleep(self._load_timeout)
            raise LoadTimeout(f"the scripted engine showed no sign of life for {self._load_timeout:g} seconds")
        if model.load_delay:
            await asyncio.sleep(model.load_delay)
        if model.load_error is not None:
            raise LoadFailed(model.load_error)
        info = RunnerInfo(
            engine=self.name,
            version=__version__,
            num_ctx=load.num_ctx,
            slots=load.slots,
            vocabulary=len(self._vocabulary),
            bos=self._vocabulary.bos,
            eos=self._vocabulary.eos,
            add_bos=model.bos,
            embedding_length=model.embedding_length,
            seed_exact=model.seed_exact,
            features=frozenset(Feature) - {Feature(name) for name in model.without},
            memory=0,
            reason=reason,
            bits=__version__,
            markup=Markup(self._vocabulary.control),
        )
        return ScriptedRunner(files.name, self.script, self._vocabulary, info)


class ScriptedRunner:
    """One loaded scripted model. See `puna.engine.runner.Runner`."""

    def __init__(self, name: str, script: Script, vocabulary: ScriptedVocabulary, info: RunnerInfo) -> None:
        self._name = name
        self._script = script
        self._vocabulary = vocabulary
        self._info = info
        self._slots = [_Slot() for _ in range(info.slots)]
        self._free = asyncio.Semaphore(info.slots)
        self._died: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    @property
    def info(self) -> RunnerInfo:
        return self._info

    @property
    def died(self) -> asyncio.Future[str]:
        return self._died

    async def tokenize(self, text: str, *, special: bool, bos: bool) -> list[int]:
        await asyncio.sleep(0)  # as one in another process would let others have their turn
        self._check_alive()
        head = [self._vocabulary.bos] if bos and self._info.add_bos else []
        if len(text) <= _LONG:
            return head + self._vocabulary.tokenize(text.encode(), special=special)
        return head + await in_lane(lambda: self._vocabulary.tokenize(text.encode(), special=special))

    async def detokenize(self, tokens: Sequence[int]) -> bytes:
        self._check_alive()
        return b"".join(self._vocabulary.piece(token) for token in tokens)

    async def generate(
        self, prompt: Prompt, sampling: Sampling, constraint: Constraint | None = None
    ) -> AsyncIterator[Step]:
        self._check_alive()
        tokens = prompt.tokens or tuple(self._vocabulary.tokenize("".join(prompt.texts).encode(), special=True))
        if len(tokens) >= self._info.num_ctx:
            raise ContextLengthExceeded(len(tokens), self._info.num_ctx, param="prompt", what="prompt")
        plan = self._plan(prompt, tokens, sampling, constraint)
        async with self._slot(tokens) as slot:
            cached = slot.cached(tokens)
            slot.tokens = tokens
            began = time.perf_counter_ns()
            await self._pass(plan.answer.prompt_delay)
            prompt_ns = time.perf_counter_ns() - began
            limit = min(sampling.max_tokens, self._info.num_ctx - len(tokens))
            done = 0
            for token in plan.ids(limit):
                self._fail(plan.answer, done)
                await self._pass(plan.answer.delay)
                slot.tokens += (token,)
                if not done:
                    yield Prefilled(len(tokens), cached, prompt_ns)
                yield self._token(token, done, plan.answer, sampling)
                done += 1
            self._fail(plan.answer, done)
            cut = plan.repeat or done < len(plan.tokens)
            yield End(
                reason="length" if cut and done == limit else plan.answer.finish,
                prompt_tokens=len(tokens),
                cached_tokens=cached,
                completion_tokens=done,
                prompt_ns=prompt_ns,
                decode_ns=time.perf_counter_ns() - began - prompt_ns,
                settings=_settings(sampling, constraint, prompt.cache_key),
            )

    async def score(self, tokens: Sequence[int], *, top: int) -> list[tuple[float, tuple[Candidate, ...]]]:
        self._check_alive()
        return [(_logprob(i), self._top(token, i, None, top)) for i, token in enumerate(tokens) if i]

    async def weigh(self, tokens: Sequence[int], following: Sequence[int]) -> Weighed:
        """What the script answers is likely, if the tokens may come of it; all else is so much less, by its id."""
        self._check_alive()
        if len(tokens) >= self._info.num_ctx:
            raise ContextLengthExceeded(len(tokens), self._info.num_ctx, param="prompt", what="prompt")
        next_ = self._scripted_next(tokens)
        weights = tuple(_logprob(0) if token == next_ else -4.0 - token / 1024 for token in following)
        async with self._slot(tokens) as slot:
            cached = slot.cached(tokens)
            slot.tokens = tuple(tokens)
        return Weighed(weights, cached)

    def _scripted_next(self, tokens: Sequence[int]) -> int | None:
        """The token that the script's answer has after `tokens`: a prompt, and perhaps a beginning of its answer.

        A text is tokenised byte by byte here, so that beginning is bytes.
        """
        prompt = b"".join(self._vocabulary.piece(token) for token in tokens).decode(errors="replace")
        text = (self._script.answer(self._name, prompt, False, 0).text or "").encode()
        given = bytes(token for token in tokens if token < 256)
        begun = next((size for size in range(len(text), -1, -1) if given.endswith(text[:size])), 0)
        return text[begun] if begun < len(text) else None

    async def embed(self, tokens: Sequence[int]) -> list[float]:
        await asyncio.sleep(0)
        self._check_alive()
        if len(tokens) > self._info.num_ctx:
            raise ContextLengthExceeded(len(tokens), self._info.num_ctx, param="input", what="input")
        seed = hashlib.sha256(b",".join(b"%d" % token for token in tokens)).digest()
        return [seed[i % 32] / 127.5 - 1.0 for i in range(self._info.embedding_length)]

    async def rank(self, query: str, document: str) -> Ranked:
        """The more of the query's words a document has, the likelier it is the answer."""
        self._check_alive()
        tokens = len(query.encode()) + len(document.encode())
        if tokens > self._info.num_ctx:
            raise ContextLengthExceeded(tokens, self._info.num_ctx, param="documents", what="query and document")
        words = query.lower().split()
        shared = sum(word in document.lower().split() for word in words)
        return Ranked(4.0 * shared / max(len(words), 1) - 2.0, tokens)

    async def busy(self) -> int:
        self._check_alive()
        return sum(slot.working for slot in self._slots)

    async def strays(self) -> frozenset[Hashable]:
        self._check_alive()
        return frozenset()

    def kill(self, why: str) -> None:
        if not self._died.done():
            self._died.set_result(why)

    async def close(self) -> None:
        self.kill("closed")

    def _check_alive(self) -> None:
        if self._died.done():
            raise RunnerDied(f"the model runner has ended: {self._died.result()}")

    def _fail(self, answer: ScriptedAnswer, done: int) -> None:
        if answer.error is not None and answer.error.after == done and not self._died.done():
            self._died.set_result(answer.error.message)
        self._check_alive()

    async def _pass(self, seconds: float) -> None:
        """Let time pass, as a slow model does; ends early when the runner dies."""
        if seconds:
            await asyncio.wait({self._died}, timeout=seconds)
        else:
            await asyncio.sleep(0)
        self._check_alive()

    @asynccontextmanager
    async def _slot(self, tokens: Sequence[int]) -> AsyncIterator[_Slot]:
        """Of the free slots, the one whose cache helps most."""
        async with self._free:
            slot = max((slot for slot in self._slots if not slot.working), key=lambda slot: slot.cached(tokens))
            slot.working = True
            try:
                yield slot
            finally:
                slot.working = False

    def _plan(self, prompt: Prompt, tokens: Sequence[int], sampling: Sampling, constraint: Constraint | None) -> _Plan:
        text = b"".join(self._vocabulary.piece(token) for token in tokens).decode(errors="replace")
        answer = self._script.answer(self._name, text, constraint is not None, sampling.seed)
        pieces = [*_pieces(answer.model_copy(update={"tool_calls": []}))]
        if answer.echo == "prompt":
            pieces += self._vocabulary.echoed(tokens)
        elif answer.echo == "sampling":
            pieces += split_text(json.dumps(_settings(sampling, constraint, prompt.cache_key)).encode())
        elif answer.echo == "constraint":
            pieces += split_text((constraint.gbnf if constraint else "").encode())
        pieces += _pieces(ScriptedAnswer(tool_calls=answer.tool_calls))
        ids = tuple(id_ for piece in pieces for id_ in self._vocabulary.ids(piece))
        return _Plan(answer, ids, answer.repeat or sampling.ignore_eos)

    def _token(self, token: int, index: int, answer: ScriptedAnswer, sampling: Sampling) -> Token:
        data = self._vocabulary.data(token)
        if sampling.logprobs is None:
            return Token(token, data)
        fixed = answer.logprobs[index] if index < len(answer.logprobs) else None
        logprob = _logprob(index) if fixed is None else fixed
        return Token(token, data, logprob, self._top(token, index, fixed, sampling.logprobs))

    def _top(self, token: int, index: int, fixed: float | None, many: int) -> tuple[Candidate, ...]:
        """The chosen token first, then the ids after it, each half as likely as the one before."""
        first = _logprob(index) if fixed is None else fixed
        ids = ((token + i) % len(self._vocabulary) for i in range(min(many, len(self._vocabulary))))
        return tuple(Candidate(id_, self._vocabulary.data(id_), first - 0.6931 * i) for i, id_ in enumerate(ids))


def _logprob(index: int) -> float:
    """Some log-probability that differs from place to place and repeats."""
    return -0.125 * (1 + index % 8)


def _settings(sampling: Sampling, constraint: Constraint | None, cache_key: str | None) -> JsonObject:
    return {
        # First, so that an answer that this very limit cuts still shows it.
        "max_tokens": sampling.max_tokens,
        **sampling.settings(),
        "logprobs": sampling.logprobs,
        "prefilled": sampling.prefilled,
        "cache_key": cache_key,
        "grammar": constraint.gbnf if constraint else "",
    }
