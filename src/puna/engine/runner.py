"""The seam to engines, at tokens.

Above it: templates, tools, stop strings, thinking, half characters, `n`, echo, usage, dialects. Below it: a loaded
model that turns token ids into token ids. Whatever an engine cannot do it says in `RunnerInfo.features`, and the caller
refuses or reports it; an engine never weakens a request in silence.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

from puna.model.markup import NO_MARKUP, Markup
from puna.types import Candidate, JsonObject, JsonValue


class Feature(str, Enum):
    """What not every engine can do."""

    CONSTRAINT = "constraint"
    LOGPROBS = "logprobs"
    LOGIT_BIAS = "logit_bias"
    MIROSTAT = "mirostat"
    EMBED = "embed"
    RANK = "rank"
    SCORE = "score"
    MEDIA = "media"
    PREDICTION = "prediction"


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How a Runner is started. None: the engine chooses for the model and the machine.

    `num_ctx` is per slot: each of `slots` requests at once has all of it. `embedding`: loaded to embed, not to
    generate.
    """

    num_ctx: int
    slots: int
    num_batch: int | None = None
    num_thread: int | None = None
    num_gpu: int | None = None
    main_gpu: int | None = None
    use_mmap: bool | None = None
    flash_attention: bool | None = None
    cache_type: Literal["f16", "q8_0", "q4_0"] | None = None
    embedding: bool = False


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The files of one model, resolved to paths, with what its header said (see `puna.model.gguf`).

    `shards`: the files after the first, where the weights are in several.
    `name`: the Name it was first asked for under; for logs and scripts only. `pooled`: the header says how the model
    pools embeddings. `ranks`: it has a head for ranks.
    """

    weights: Path
    digest: str
    architecture: str
    quantization: str
    projectors: tuple[Path, ...] = ()
    adapters: tuple[Path, ...] = ()
    name: str = ""
    pooled: bool = False
    shards: tuple[Path, ...] = ()
    ranks: bool = False

    @property
    def whole(self) -> tuple[Path, ...]:
        """The files of the weights, in order."""
        return (self.weights, *self.shards)


@dataclass(frozen=True, slots=True)
class RunnerInfo:
    """What a loaded model is. `num_ctx` per slot. `reason`: why this engine was chosen, in words.

    `eos`: ids that end an answer. `add_bos`: a text prompt starts with `bos`. `memory`: bytes, estimated or measured.
    `closes`: what a text that is embedded ends with, by the model's file (a separator, as a rule).
    `seed_exact`: the same request gives the same bytes, alone or in any company, cached or not. `bits`: differs where
    that differs, of engine and load, which may change a byte of an answer. `without_effect`: names of LoadOptions that
    mean nothing to this engine. `markup`: the texts that are control tokens when a text's are looked for (see
    `Runner.tokenize`).
    """

    engine: str
    version: str
    num_ctx: int
    slots: int
    vocabulary: int
    bos: int | None
    eos: tuple[int, ...]
    add_bos: bool
    embedding_length: int
    seed_exact: bool
    features: frozenset[Feature]
    memory: int
    pid: int | None = None
    reason: str = ""
    bits: str = ""
    without_effect: tuple[str, ...] = ()
    markup: Markup = field(default=NO_MARKUP, repr=False, compare=False)
    closes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Prompt:
    """Token ids, ready for an engine. With `media`, `texts` hold the prompt instead: what stands around each item.

    The engine reads control tokens out of them, and adds its own `bos` (`RunnerInfo.add_bos`). The tokens then are only
    of the text, a marker for each item included: what media come to is told by Prefilled and End.

    `cache_key`: prompts of the same key are likely to begin alike. An engine that keeps one cache a slot brings them
    together; one whose cache is found by content needs no hint.

    `prediction`: the answer is expected to hold these tokens. An engine that guesses (`Feature.PREDICTION`) takes them
    for guesses; they change how soon an answer comes, and no token of it.
    """

    tokens: tuple[int, ...]
    texts: tuple[str, ...] = ()
    media: tuple[bytes, ...] = ()
    cache_key: str | None = None
    prediction: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Constraint:
    """What the next tokens may be: a GBNF grammar whose start rule is `root`."""

    gbnf: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Every setting of one generation, decided. `seed` is 32 bits, unsigned; `max_tokens` at least 1.

    `logprobs` None: none wanted; k: the chosen token's and k alternatives'. Order of samplers (llama.cpp's): bias,
    penalties, top-k, typical, top-p, min-p, temperature. `prefilled`: whether Prefilled is read; an engine for which it
    is work may leave it out otherwise.
    """

    max_tokens: int
    seed: int
    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.9
    min_p: float = 0.0
    typical_p: float = 1.0
    repeat_last_n: int = 64
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    mirostat: int = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
    logit_bias: tuple[tuple[int, float], ...] = ()
    ignore_eos: bool = False
    logprobs: int | None = None
    prefilled: bool = True

    def settings(self) -> JsonObject:
        """What decides the tokens, by llama.cpp's names, as JSON."""
        bias: list[JsonValue] = [[token, value] for token, value in self.logit_bias]
        return {
            "seed": self.seed,
            "temperature": self.temperature,
            "top_k": self.top_k,
            "top_p": self.top_p,
            "min_p": self.min_p,
            "typical_p": self.typical_p,
            "repeat_last_n": self.repeat_last_n,
            "repeat_penalty": self.repeat_penalty,
            "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty,
            "mirostat": self.mirostat,
            "mirostat_tau": self.mirostat_tau,
            "mirostat_eta": self.mirostat_eta,
            "ignore_eos": self.ignore_eos,
            "logit_bias": bias,
        }


@dataclass(frozen=True, slots=True)
class Token:
    """One generated token. `data`: its bytes, which may end inside a character; empty for a control token."""

    id: int
    data: bytes
    logprob: float | None = None
    top: tuple[Candidate, ...] = ()


@dataclass(frozen=True, slots=True)
class Prefilled:
    """The prompt is processed: comes once, before the first Token. Counts and duration as in End.

    An answer that a stop string ends early is closed before its End; this is where its cached tokens are told.
    """

    prompt_tokens: int
    cached_tokens: int
    prompt_ns: int


@dataclass(frozen=True, slots=True)
class Weighed:
    """Log-probabilities of tokens that could come next, in the order they were asked for.

    `cached`: how many tokens before them were not computed anew.
    """

    logprobs: tuple[float, ...]
    cached: int = 0


@dataclass(frozen=True, slots=True)
class Ranked:
    """How a document stands to a query: the natural logarithm of the odds that it answers it; the tokens of both."""

    log_odds: float
    tokens: int


@dataclass(frozen=True, slots=True)
class End:
    """Why generation ended: `stop` (an end-of-answer token, which is not among the tokens), or `length`.

    `prompt_tokens` is the engine's own count. Durations in nanoseconds. `settings`: what the engine says it used.
    """

    reason: Literal["stop", "length"]
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    prompt_ns: int = 0
    decode_ns: int = 0
    settings: JsonObject = field(default_factory=dict)


Step: TypeAlias = Prefilled | Token | End


class Runner(Protocol):
    """One loaded model. Safe to use from many tasks at once; requests over `info.slots` wait inside it.

    Every method raises `RunnerDied` (with the cause) when the process is gone.
    """

    @property
    def info(self) -> RunnerInfo: ...

    @property
    def died(self) -> asyncio.Future[str]:
        """Done with the cause once the runner has ended, asked or not."""
        ...

    async def tokenize(self, text: str, *, special: bool, bos: bool) -> list[int]:
        """Text to ids. `special`: text of control tokens becomes these. `bos`: begin with it if the model does."""
        ...

    async def detokenize(self, tokens: Sequence[int]) -> bytes:
        """Ids to bytes; control tokens as their text."""
        ...

    def generate(self, prompt: Prompt, sampling: Sampling, constraint: Constraint | None = None) -> AsyncIterator[Step]:
        """Prefilled, tokens as they come, then one End.

        Closing the iterator stops the work within one step of the engine.
        """
        ...

    async def score(self, tokens: Sequence[int], *, top: int) -> list[tuple[float, tuple[Candidate, ...]]]:
        """For each token but the first: its log-probability after those before it, and `top` alternatives."""
        ...

    async def weigh(self, tokens: Sequence[int], following: Sequence[int]) -> Weighed:
        """How likely each of `following` is to come after `tokens`, which are one at least (`Feature.SCORE`)."""
        ...

    async def embed(self, tokens: Sequence[int]) -> list[float]:
        """One pooled vector, not normalised."""
        ...

    async def rank(self, query: str, document: str) -> Ranked:
        """What the head of a model makes of a pair, which it lays out as it was trained (`Feature.RANK`).

        Where the model's file has a template for pairs, texts of control tokens in either become these.
        """
        ...

    async def busy(self) -> int:
        """How many slots work now, as the engine itself sees it.

        It is whoever computes that answers, between two steps: an answer is a sign of life.
        """
        ...

    async def strays(self) -> frozenset[Hashable]:
        """Work of these slots that nobody waits for any more, each by a mark that stays: cancels that are not obeyed.

        What may be somebody's is left out.
        """
        ...

    def kill(self, why: str) -> None:
        """End it now, without asking; `why` becomes the cause that `died` tells. No effect once it has ended."""
        ...

    async def close(self) -> None:
        """Ask, wait, kill. Returns when the process is gone. May be called twice."""
        ...
