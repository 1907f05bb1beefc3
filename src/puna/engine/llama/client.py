"""A Runner over llama.cpp's HTTP API on a Unix socket: the wheel's server and `llama-server` alike.

Only token endpoints are used. Each request has a connection of its own, for the engine closes kept ones without notice.
Two of its habits are undone here: it leaves out tokens that end inside a character (see `pieces`), and it gives the
end-of-answer token like any other.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import math
import re
from array import array
from collections.abc import AsyncGenerator, AsyncIterator, Hashable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from puna.engine.llama.errands import Errands
from puna.engine.llama.http import EngineSocket, Exchange, Method
from puna.engine.llama.options import WAITING
from puna.engine.llama.pieces import Pieces, ends_inside, vocabulary
from puna.engine.llama.saved import SavedSlots
from puna.engine.llama.slots import SlotKeys
from puna.engine.llama.talks import Talks
from puna.engine.process import ChildProcess
from puna.engine.runner import (
    Constraint,
    End,
    Prefilled,
    Prompt,
    Ranked,
    RunnerInfo,
    Sampling,
    Step,
    Token,
    Weighed,
)
from puna.errors import ContextLengthExceeded, EngineError, InvalidRequest, RunnerDied
from puna.model.gguf import read_header
from puna.types import Candidate

SAMPLERS = ("penalties", "top_k", "typ_p", "top_p", "min_p", "temperature")
"""In the order that `Sampling` promises; the bias comes before all of them in any case."""

REPLAY_LIMIT = 512
"""Tokens of an answer that is made once more, to learn those at its end that the engine left out."""

_END_FIELDS = (
    "content",
    "tokens",
    "stop",
    "stop_type",
    "id_slot",
    "tokens_predicted",
    "tokens_evaluated",
    "timings",
    "generation_settings",
    "completion_probabilities",
)
"""What is read of a stream's last event; the engine would repeat the prompt, too."""

_STREAMED = {"stream": True, "response_fields": _END_FIELDS}

_ENGINE_RANDOM_SEED = 2**32 - 1
_ANY_SLOT = -1
_FORCE = 1e9
_WIDE = 1024
_UNTOLD = -9999.0
"""OpenAI's own number for a log-probability that is not told."""

_UNCUT = "Failed to tokenize prompt"
_UNREADABLE = "Failed to load image or audio file"
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_BROKEN = re.compile(f"{_REPLACEMENT}+")
"""Bytes that are no text, as the engine tells them."""
_DEATH_WAIT = 2.0
_LEAST = 2.0**-24
_TOO_LONG = re.compile(r"input \((\d+) tokens\) is too large to process.*batch size: (\d+)")
"""What the engine says of an input that does not fit, as if the fault were its own."""

_WORK = frozenset({"/completion", "/embedding", "/rerank"})
"""What takes a slot."""

SETTLING = 2.0
"""Seconds, at most, that slots may be saved before a runner ends: others may wait for its memory."""


class LlamaRunner:
    """One llama.cpp server with one model. See `puna.engine.runner.Runner`.

    `weights`: the file, whose vocabulary is read when first needed. `plain`: a token that is whole characters.
    `marker`: what stands for an item of media. `likely`: ranks come as probabilities. `saved`: where slots are saved,
    if they are, and what is there by name.
    """

    def __init__(
        self,
        process: ChildProcess,
        socket: EngineSocket,
        info: RunnerInfo,
        *,
        weights: Path,
        plain: int,
        marker: str,
        likely: bool = False,
        saved: tuple[SavedSlots, Mapping[str, array[int]]] | None = None,
    ) -> None:
        self._process = process
        self._socket = socket
        self._info = info
        self._weights = weights
        self._plain = plain
        self._marker = marker
        self._likely = likely
        self._room = asyncio.Semaphore(info.slots + WAITING)
        self._keys = SlotKeys(info.slots)
        self._taken: set[int] = set()
        self._errands = Errands()
        self._talks = None if saved is None else Talks(info.slots, *saved, self._post, self._working)
        self._one_embedding = asyncio.Lock()
        self._pieces: asyncio.Future[Pieces | None] | None = None

    @property
    def info(self) -> RunnerInfo:
        return self._info

    @property
    def died(self) -> asyncio.Future[str]:
        return self._process.died

    async def tokenize(self, text: str, *, special: bool, bos: bool) -> list[int]:
        body = {"content": text, "add_special": False, "parse_special": special}
        async with self._open("POST", "/tokenize", body, more=True) as exchange:
            tokens: list[int] = (await exchange.json())["tokens"]
        if bos and self._info.add_bos and self._info.bos is not None:
            return [self._info.bos, *tokens]
        return tokens

    async def detokenize(self, tokens: Sequence[int]) -> bytes:
        self._check_known(tokens, "tokens")
        text: str = (await self._post("/detokenize", {"tokens": list(tokens)}))["content"]
        if _REPLACEMENT not in text:
            return text.encode()
        pieces = await self._vocabulary()
        if pieces is None:
            return text.encode()
        parts = [
            pieces[token]
            if ends_inside(pieces[token]) or not _whole(pieces[token])
            else (await self._post("/detokenize", {"tokens": [token]}))["content"].encode()
            for token in tokens
        ]
        return b"".join(parts)

    async def generate(
        self, prompt: Prompt, sampling: Sampling, constraint: Constraint | None = None
    ) -> AsyncIterator[Step]:
        # How many tokens media are, only the engine knows: it sees to the context itself then.
        size = 0 if prompt.media else len(prompt.tokens)
        if size >= self._info.num_ctx:
            raise ContextLengthExceeded(size, self._info.num_ctx, param="prompt", what="prompt")
        self._check_known(prompt.tokens)
        sampling = replace(sampling, max_tokens=min(sampling.max_tokens, self._info.num_ctx - size))
        body = {**_sampling(sampling, constraint, self._info.num_ctx), "prompt": self._prompt(prompt)}
        reader = _Reader(self, prompt, sampling, body)
        progress: Mapping[str, Any] | None = None
        async with self._room, self._placed(prompt) as slot, self._followed(), self._explained(prompt.media):
            asked = {**body, **_STREAMED, "return_progress": sampling.prefilled, "id_slot": slot}
            # No generator of events between this one and the connection: each costs every token its way through it.
            with self._errands.one():
                async with self._open("POST", "/completion", asked) as exchange:
                    events = _Events()
                    while data := await exchange.read():
                        for event in events.feed(data):
                            if "prompt_progress" in event:
                                progress = event["prompt_progress"]
                                continue
                            if progress is not None:
                                yield _prefilled(progress)
                                progress = None
                            token = reader.plain(event)
                            if token is not None:
                                yield token
                                continue
                            for token in await reader.take(event):
                                yield token
            end = reader.end()
            self._keys.used(reader.slot, prompt.cache_key)
            if self._talks is not None:
                self._talks.hold(reader.slot, () if prompt.media else (*prompt.tokens, *reader.ids))
        # The place is free before the end is told: who has it may let this generator lie, or look into it later.
        yield end

    @asynccontextmanager
    async def _explained(self, media: Sequence[bytes]) -> AsyncIterator[None]:
        """InvalidRequest raised inside says which item of media the engine cannot read."""
        try:
            yield
        except InvalidRequest as error:
            told = await self._of_media(error, media) if media else None
            if told is None:
                raise
            raise told from error

    async def _of_media(self, error: InvalidRequest, media: Sequence[bytes]) -> InvalidRequest | None:
        """What the engine said of a prompt with media in words of the request, if it is about the media."""
        if isinstance(error, ContextLengthExceeded):
            return ContextLengthExceeded(error.tokens, error.limit)
        if _UNREADABLE in error.message:
            readable = [await self._reads(item) for item in media]
            which = f"image or sound {readable.index(False) + 1 if False in readable else 'one'} of {len(media)}"
            reason = f"{which} cannot be read: it is damaged, or of another format"
        elif _UNCUT in error.message:
            reason = f"one of {len(media)} images and sounds cannot be made into tokens: its shape may be too long"
        else:
            return None
        return InvalidRequest(reason, param="messages", code="invalid_media")

    async def _reads(self, item: bytes) -> bool:
        """Whether the engine can read an item of media: one without a place in the text is read, then complained of."""
        body = {"prompt": {"prompt_string": "", "multimodal_data": [base64.b64encode(item).decode()]}, "n_predict": 0}
        try:
            await self._post("/completion", body)
        except InvalidRequest as error:
            return _UNREADABLE not in error.message
        return True

    async def score(self, tokens: Sequence[int], *, top: int) -> list[tuple[float, tuple[Candidate, ...]]]:
        self._check_known(tokens)
        async with self._room, self._talks.beside() if self._talks is not None else contextlib.nullcontext():
            return [await self.chance(tokens[:i], tokens[i], top) for i in range(1, len(tokens))]

    async def weigh(self, tokens: Sequence[int], following: Sequence[int]) -> Weighed:
        self._check_known([*tokens, *following])
        if len(tokens) >= self._info.num_ctx:
            raise ContextLengthExceeded(len(tokens), self._info.num_ctx, param="prompt", what="prompt")
        async with self._room:
            answer = await self._force(tokens, following[0], _WIDE if len(following) > 1 else 1)
            entry = _told(answer, following[0])
            known = {} if entry is None else {item["id"]: _number(item["logprob"]) for item in entry["top_logprobs"]}
            if entry is not None:
                known[following[0]] = _number(entry["logprob"])
            logprobs = [
                known[token] if token in known else (await self.chance(tokens, token, 0))[0] for token in following
            ]
        return Weighed(tuple(logprobs), answer["timings"]["cache_n"])

    async def chance(self, before: Sequence[int], token: int, top: int) -> tuple[float, tuple[Candidate, ...]]:
        """Log-probability of `token` after `before`, and the `top` likeliest.

        The engine tells only of a token it chose, so the choice is forced; what it tells is from before any forcing.
        Of one that ends inside a character it tells nothing: that is looked up among the alternatives to another.
        """
        entry = await self._forced(before, token, max(top, 1))
        if entry is not None:
            return _number(entry["logprob"]), _candidates(entry, top)
        for many in (max(top, _WIDE), self._info.vocabulary):
            entry = await self._forced(before, self._plain, many) or {"top_logprobs": ()}
            for item in entry["top_logprobs"]:
                if item["id"] == token:
                    return _number(item["logprob"]), _candidates(entry, top)
        raise EngineError(f"the engine does not tell the probability of token {token}")

    async def _forced(self, before: Sequence[int], token: int, many: int) -> Mapping[str, Any] | None:
        """What the engine tells of `token` after `before`."""
        return _told(await self._force(before, token, many), token)

    async def _force(self, before: Sequence[int], token: int, many: int) -> Mapping[str, Any]:
        """The engine's answer when it has no choice but `token`."""
        body = {
            "prompt": list(before),
            "n_predict": 1,
            "n_probs": many,
            "logit_bias": [[token, _FORCE]],
            "temperature": 0.0,
            "samplers": ["temperature"],
            "cache_prompt": True,
        }
        answer: Mapping[str, Any] = await self._post("/completion", body)
        self._note(answer, before)
        return answer

    async def embed(self, tokens: Sequence[int]) -> list[float]:
        if len(tokens) > self._info.num_ctx:
            raise ContextLengthExceeded(len(tokens), self._info.num_ctx, param="input", what="input")
        self._check_known(tokens)
        # One at a time: in company, and over a cached prefix, this engine gives other vectors.
        async with self._one_embedding:
            body = {"content": list(tokens), "embd_normalize": -1, "cache_prompt": False}
            answer = await self._post("/embedding", body)
        return list(map(_number, answer[0]["embedding"][0]))

    async def rank(self, query: str, document: str) -> Ranked:
        async with self._one_embedding:
            answer = await self._post("/rerank", {"query": query, "documents": [document]})
        score = _number(answer["results"][0]["relevance_score"])
        return Ranked(_log_odds(score) if self._likely else score, int(answer["usage"]["prompt_tokens"]))

    async def busy(self) -> int:
        return len(await self._working())

    async def strays(self) -> frozenset[Hashable]:
        slots = await self._get("/slots")
        return self._errands.strays((slot["id"], slot["id_task"]) for slot in slots if slot["is_processing"])

    async def _working(self) -> set[int]:
        """The slots that work now."""
        return {slot["id"] for slot in await self._get("/slots") if slot["is_processing"]}

    @asynccontextmanager
    async def _placed(self, prompt: Prompt) -> AsyncIterator[int]:
        """The slot for this prompt, for as long as it runs; _ANY_SLOT: the engine's choice."""
        if self._talks is None:
            async with self._placed_by_key(prompt.cache_key) as slot:
                yield slot
        elif prompt.media:
            async with self._talks.beside(), self._placed_by_key(prompt.cache_key) as slot:
                yield slot
        else:
            async with self._talks.placed(prompt.tokens) as found:
                yield _ANY_SLOT if found is None else found

    @asynccontextmanager
    async def _placed_by_key(self, key: str | None) -> AsyncIterator[int]:
        slot = None if key is None else self._keys.choose(key, await self._working() | self._taken)
        if slot is None:
            yield _ANY_SLOT
            return
        self._keys.used(slot, key)
        self._taken.add(slot)
        try:
            yield slot
        finally:
            self._taken.remove(slot)

    @asynccontextmanager
    async def _followed(self) -> AsyncIterator[None]:
        """Who has read an answer often asks again at once: the connection for that is opened when this one is done."""
        try:
            yield
        finally:
            if not self.died.done():
                self._socket.open_ahead()

    def kill(self, why: str) -> None:
        self._process.kill(why)

    async def close(self) -> None:
        if self._talks is not None:
            self._talks.stop()
            if not self.died.done():
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._talks.settle(), SETTLING)
        self._socket.close()
        await self._process.close()

    # ------------------------------------------------------------------------------------------------- left out

    async def recover(self, before: Sequence[int] | None, data: bytes, count: int, last: int) -> tuple[int, ...] | None:
        """The `count` ids that came as one chunk with `data` and `last`; None if they cannot be told.

        Where several sequences give the same bytes (rare: a vocabulary cuts one character two ways), the likeliest.
        `before` None: what came before is more than tokens, and no likelihood can be asked for.
        """
        pieces = await self._vocabulary()
        ways = [] if pieces is None else pieces.between(data, count, last)
        if len(ways) < 2 or before is None:
            return ways[0] if len(ways) == 1 else None
        chances = [await self._joint(before, way) for way in ways]
        return ways[chances.index(max(chances))]

    async def replay(self, body: Mapping[str, Any], known: Sequence[int], count: int) -> tuple[int, ...] | None:
        """What follows `known` among the `count` tokens of the same request made again; None if it went otherwise."""
        if count > REPLAY_LIMIT:
            return None
        answer = await self._post("/completion", {**body, "n_predict": count, "stream": False})
        tokens = tuple(answer["tokens"])
        prompt = body["prompt"]
        self._note(answer, [*prompt, *tokens] if isinstance(prompt, list) else ())
        return tokens[len(known) :] if tokens[: len(known)] == tuple(known) else None

    def _note(self, answer: Mapping[str, Any], tokens: Sequence[int]) -> None:
        """The engine chose a slot for an answer of its own accord, and these tokens are in it now."""
        if self._talks is not None:
            self._talks.hold(answer["id_slot"], tokens)

    async def piece(self, token: int) -> bytes | None:
        """Its bytes, if the kind of vocabulary is known."""
        pieces = await self._vocabulary()
        return None if pieces is None else pieces[token]

    async def _joint(self, before: Sequence[int], way: Sequence[int]) -> float:
        return sum([(await self.chance([*before, *way[:i]], way[i], 0))[0] for i in range(len(way))])

    async def _vocabulary(self) -> Pieces | None:
        """Read once, when first needed, in a thread."""
        if self._pieces is None:
            self._pieces = asyncio.ensure_future(asyncio.to_thread(_read_vocabulary, self._weights))
        return await asyncio.shield(self._pieces)

    # ------------------------------------------------------------------------------------------------------ HTTP

    def _prompt(self, prompt: Prompt) -> object:
        if not prompt.media:
            return list(prompt.tokens)
        return {
            "prompt_string": self._marker.join(prompt.texts),
            "multimodal_data": [base64.b64encode(item).decode() for item in prompt.media],
        }

    def _check_known(self, tokens: Sequence[int], param: str = "prompt") -> None:
        if tokens and not (min(tokens) >= 0 and max(tokens) < self._info.vocabulary):
            raise InvalidRequest(f"token ids go from 0 to {self._info.vocabulary - 1}", param=param)

    async def _post(self, path: str, body: Mapping[str, Any]) -> Any:
        with self._errands.one() if path in _WORK else contextlib.nullcontext():
            async with self._open("POST", path, body) as exchange:
                return await exchange.json()

    async def _get(self, path: str) -> Any:
        async with self._open("GET", path, None) as exchange:
            return await exchange.json()

    @asynccontextmanager
    async def _open(
        self, method: Method, path: str, body: Mapping[str, Any] | None, *, more: bool = False
    ) -> AsyncGenerator[Exchange]:
        if self.died.done():
            raise RunnerDied(f"the model runner has ended: {self.died.result()}")
        try:
            async with self._socket.open(method, path, body, more=more) as exchange:
                if exchange.status != 200:
                    raise _refused((await exchange.json())["error"])
                yield exchange
        except OSError as error:
            raise await self._broken(error) from error

    async def _broken(self, error: Exception) -> EngineError:
        """The connection broke: most likely because the process did."""
        await asyncio.wait({self.died}, timeout=_DEATH_WAIT)
        if self.died.done():
            return RunnerDied(f"the model runner has ended: {self.died.result()}")
        return EngineError(f"the connection to the model runner broke: {error}")


def _prefilled(progress: Mapping[str, Any]) -> Prefilled:
    """From the last report of how far the prompt is."""
    return Prefilled(progress["total"], progress["cache"], int(progress["time_ms"] * 1e6))


class _Events:
    """The events of a stream, out of its bytes. Raises an error that the engine tells instead of one."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Mapping[str, Any]]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line.startswith(b"data: "):
                event = from_json(line[6:])
                if "error" in event:
                    raise _refused(event["error"])
                yield event


class _Reader:
    """One answer: the engine's events to Tokens and an End."""

    def __init__(self, runner: LlamaRunner, prompt: Prompt, sampling: Sampling, body: Mapping[str, Any]) -> None:
        self._runner = runner
        self._prompt = None if prompt.media else prompt.tokens
        self._sampling = sampling
        self._body = body
        self._ids: list[int] = []
        self._predicted = 0
        self._held: Token | None = None
        self._last: Mapping[str, Any] | None = None

    def plain(self, event: Mapping[str, Any]) -> Token | None:
        """The token of an event that is one token of whole characters, as nearly all are. None: `take` it."""
        content: str = event["content"]
        if (
            not content
            or event["stop"]
            or self._held is not None
            or event["tokens_predicted"] != self._predicted + 1
            or _REPLACEMENT in content
            or "completion_probabilities" in event
        ):
            return None
        self._predicted += 1
        token: int = event["tokens"][-1]
        self._ids.append(token)
        return Token(token, content.encode())

    async def take(self, event: Mapping[str, Any]) -> Sequence[Token]:
        """The tokens that this event completes."""
        if event["stop"]:
            self._last = event
            return await self._finish(event)
        tokens = self._release()
        count = event["tokens_predicted"] - self._predicted
        self._predicted = event["tokens_predicted"]
        probabilities = event.get("completion_probabilities")
        entry = probabilities[0] if probabilities else None
        content: str = event["content"]
        last: int = event["tokens"][-1]
        if count == 1 and not content:
            # A control token, or the one that ends the answer: only the next event tells.
            self._held = self._token(last, b"", entry)
            return tokens
        if count == 1 and _REPLACEMENT not in content:
            return [*tokens, self._give(self._token(last, content.encode(), entry))]
        return [*tokens, *await self._recover(content, count, last, entry)]

    @property
    def ids(self) -> Sequence[int]:
        """Of its tokens so far."""
        return self._ids

    @property
    def slot(self) -> int:
        """Where the answer was made; known at its end."""
        return int(self._ended["id_slot"])

    @property
    def _ended(self) -> Mapping[str, Any]:
        if self._last is None:
            raise EngineError("the engine's answer has no end")
        return self._last

    def end(self) -> End:
        last = self._ended
        timings = last["timings"]
        return End(
            reason="stop" if last["stop_type"] == "eos" else "length",
            prompt_tokens=last["tokens_evaluated"],
            cached_tokens=timings["cache_n"],
            completion_tokens=len(self._ids),
            prompt_ns=int(timings["prompt_ms"] * 1e6),
            decode_ns=int(timings["predicted_ms"] * 1e6),
            settings=last["generation_settings"],
        )

    async def _finish(self, event: Mapping[str, Any]) -> Sequence[Token]:
        """At the end: what was held, unless it is the token that ended the answer; and a half character before it."""
        ended = event["stop_type"] == "eos"
        if ended and self._held is not None:
            self._held = None
            return []
        tokens = self._release()
        missing = event["tokens_predicted"] - self._predicted
        if missing <= 0:
            return tokens
        ids = await self._runner.replay(self._body, self._ids, event["tokens_predicted"])
        return [*tokens, *[await self._scored(token) for token in (ids or ())[: missing - ended]]]

    async def _recover(self, content: str, count: int, last: int, entry: Mapping[str, Any] | None) -> list[Token]:
        """The tokens of a chunk that stands for several, or whose bytes are no text."""
        data = content.encode() if entry is None else bytes(entry["bytes"])
        ids: Sequence[int] | None = [last] if count == 1 else None
        if ids is None and (entry is not None or _REPLACEMENT not in content):
            ids = await self._runner.recover(self._before(), data, count, last)
        if ids is None:
            replayed = await self._runner.replay(self._body, self._ids, self._predicted)
            ids = replayed if replayed and len(replayed) == count and replayed[-1] == last else None
        if ids is None:
            # What cannot be told is not made up: one token, whose bytes are right as text. A grammar has read one
            # character, seldom more, where the engine tells several U+FFFD.
            if entry is None and self._body["grammar"]:
                data = _BROKEN.sub(_REPLACEMENT, content).encode()
            return [self._give(self._token(last, data, entry))]
        tokens = [await self._scored(token) for token in ids[:-1]]
        piece = await self._runner.piece(last)
        return [*tokens, self._give(self._token(last, data if piece is None else piece, entry))]

    async def _scored(self, token: int) -> Token:
        """A token that the engine left out, with its log-probability asked for after the fact.

        After media it cannot be asked for: tokens and media do not go into one prompt. It is _UNTOLD then.
        """
        data = await self._runner.piece(token) or b""
        wanted, before = self._sampling.logprobs, self._before()
        if wanted is None:
            return self._give(Token(token, data))
        if before is None:
            return self._give(Token(token, data, _UNTOLD))
        logprob, top = await self._runner.chance(before, token, wanted)
        return self._give(Token(token, data, logprob, top))

    def _before(self) -> list[int] | None:
        """All tokens so far; None if media are among them."""
        return None if self._prompt is None else [*self._prompt, *self._ids]

    def _release(self) -> list[Token]:
        held, self._held = self._held, None
        return [] if held is None else [self._give(held)]

    def _give(self, token: Token) -> Token:
        self._ids.append(token.id)
        return token

    def _token(self, id_: int, data: bytes, entry: Mapping[str, Any] | None) -> Token:
        wanted = self._sampling.logprobs
        if wanted is None or entry is None:
            return Token(id_, data)
        return Token(id_, data, _number(entry["logprob"]), _candidates(entry, wanted))


def _sampling(sampling: Sampling, constraint: Constraint | None, num_ctx: int) -> dict[str, Any]:
    """Every setting that the engine has, said: ours, and off for what is not ours."""
    return {
        **sampling.settings(),
        "n_predict": sampling.max_tokens,
        # The engine takes its largest seed for 'draw one'.
        "seed": min(sampling.seed, _ENGINE_RANDOM_SEED - 1),
        # The engine refuses -1, and keeps room for as many tokens as it is told.
        "repeat_last_n": min(sampling.repeat_last_n, num_ctx) if sampling.repeat_last_n >= 0 else num_ctx,
        "n_probs": 0 if sampling.logprobs is None else max(sampling.logprobs, 1),
        "grammar": "" if constraint is None else constraint.gbnf,
        "samplers": list(SAMPLERS),
        "return_tokens": True,
        "cache_prompt": True,
        "post_sampling_probs": False,
        "dry_multiplier": 0.0,
        "xtc_probability": 0.0,
        "top_n_sigma": -1.0,
        "dynatemp_range": 0.0,
        "adaptive_target": -1.0,
        "min_keep": 0,
        "n_keep": 0,
        "stop": [],
    }


def _told(answer: Mapping[str, Any], token: int) -> Mapping[str, Any] | None:
    """What an answer that was forced to be `token` tells of it; None: nothing."""
    entries = answer.get("completion_probabilities")
    return entries[0] if entries and entries[0]["id"] == token else None


def _number(value: float | None) -> float:
    """What is no number the engine writes as null."""
    return math.nan if value is None else float(value)


def _log_odds(chance: float) -> float:
    """Of a probability that was rounded to 32 bits."""
    chance = min(max(chance, _LEAST), 1 - _LEAST)
    return math.log(chance) - math.log1p(-chance)


def _candidates(entry: Mapping[str, Any], top: int) -> tuple[Candidate, ...]:
    return tuple(
        Candidate(item["id"], bytes(item["bytes"]), _number(item["logprob"])) for item in entry["top_logprobs"][:top]
    )


def _refused(error: Mapping[str, Any]) -> Exception:
    """An error of the engine's as one of ours."""
    message = str(error.get("message", "the engine refused the request"))
    if error.get("type") == "exceed_context_size_error":
        return ContextLengthExceeded(int(error["n_prompt_tokens"]), int(error["n_ctx"]), param="prompt", what="prompt")
    if too_long := _TOO_LONG.search(message):
        return ContextLengthExceeded(int(too_long[1]), int(too_long[2]), param="input", what="input")
    if "grammar" in message:
        return InvalidRequest(f"This grammar cannot be used: {message}.", param="grammar", code="invalid_grammar")
    if error.get("code") == 400:
        return InvalidRequest(f"the engine refused the request: {message}")
    return EngineError(f"the engine failed: {message}")


def _whole(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _read_vocabulary(weights: Path) -> Pieces | None:
    metadata = read_header(weights, arrays=True).metadata
    model, tokens, types = (metadata.get(f"tokenizer.ggml.{name}") for name in ("model", "tokens", "token_type"))
    if not isinstance(model, str) or not isinstance(tokens, tuple):
        return None
    return vocabulary(
        model,
        [token for token in tokens if isinstance(token, str)],
        [kind for kind in types if isinstance(kind, int)] if isinstance(types, tuple) else [],
    )
