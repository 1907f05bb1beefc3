"""Ranking: how likely each document answers a query, by models that were trained to tell it. A pair at a time.

Two kinds: models with a head for it (their file's pooling says so), whose engine reads the pair; and models that answer
with one of two words, which any engine that scores can be asked.
"""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass

from puna.chat.disguise import Disguise, Given, Written
from puna.engine.runner import Feature, Ranked, Runner
from puna.errors import ContextLengthExceeded, EngineError, Unsupported
from puna.inference.labels import label_logprobs
from puna.inference.literal import ZERO_WIDTH, tokenize_written
from puna.inference.sampling import cut_context, require
from puna.model.capabilities import Capability
from puna.model.model import Model
from puna.types import Ranking, RankRequest, Timings

RANK_TEMPLATE = "tokenizer.chat_template.rerank"
"""The header's key of a text with places for a query and a document; an engine puts them there."""

QWEN3_PAIR = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
    "<Instruct>: Given a web search query, retrieve relevant passages that answer the query\n\n"
    "<Query>: {query}\n\n<Document>: {document}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
)
"""What Qwen's rerankers were trained on. Source: the card of Qwen3-Reranker."""

_YES, _NO = "yes", "no"
_PLACES = re.compile(r"\{(query|document)\}")


def check_rank(model: Model) -> None:
    """A model that was not trained to rank gives numbers that mean nothing: refused before it is loaded."""
    if Capability.RERANK not in model.capabilities:
        raise Unsupported(
            f'"{model.name.short}" does not support reranking: it is no reranking model (its file names no pooling '
            "for ranks, and it is none that answers yes or no)",
            param="model",
        )


async def ranking(runner: Runner, model: Model, request: RankRequest, began: int, load_ns: int) -> Ranking:
    """The log-odds of each document, in order."""
    pairs = _Pairs(runner, model)
    pairs.check()
    ready = time.perf_counter_ns()
    found: list[Ranked] = []
    cut: list[int] = []
    changed: list[str] = []
    for place, document in enumerate(request.documents):
        ranked, shorter = await pairs.rank(request, document, f"documents[{place}]")
        found.append(ranked)
        cut += [place] if shorter else []
        changed += [f"documents[{place}]"] if pairs.changes(document) else []
    if any(not math.isfinite(ranked.log_odds) for ranked in found):
        raise EngineError("the model's ranks are not numbers")
    ignored, parameters = cut_context(request.options, model, runner.info.num_ctx)
    now = time.perf_counter_ns()
    return Ranking(
        log_odds=tuple(ranked.log_odds for ranked in found),
        prompt_tokens=sum(ranked.tokens for ranked in found),
        timings=Timings(total=now - began, load=load_ns, prompt=now - ready),
        truncated=tuple(cut),
        ignored=(*ignored, *(["query"] if pairs.changes(request.query) else []), *changed),
        ignored_parameters=(*model.ignored_parameters, *parameters),
    )


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Queries and documents on one runner."""

    runner: Runner
    model: Model

    def check(self) -> None:
        if self.model.header.ranks:
            require(self.runner.info, Feature.RANK, "ranks", "model")
        else:
            require(self.runner.info, Feature.SCORE, "log-probabilities of given texts", "model")

    def changes(self, text: str) -> bool:
        """Whether something in it can only be kept text by a character without width."""
        return bool(self._taken(text))

    def _taken(self, text: str) -> list[int]:
        """Where an engine that fills in a template's text would find control tokens, or places to fill in."""
        if self.model.header.text(RANK_TEMPLATE) is None:
            return []
        found = [begin for begin, _ in self.runner.info.markup.spans(text)]
        return sorted({*found, *(place.start() for place in _PLACES.finditer(text))})

    async def rank(self, request: RankRequest, document: str, where: str) -> tuple[Ranked, bool]:
        """Its rank, and whether it was cut: to the request's limit, or to what fits."""
        shorter = False
        if request.most is not None:
            document, shorter = await self._cut(document, request.most)
        try:
            return await self._rank(request.query, document), shorter
        except ContextLengthExceeded as error:
            if not request.truncate:
                raise ContextLengthExceeded(error.tokens, error.limit, param=where, what="query and document") from None
            over = error.tokens - error.limit
        size = len(await self._tokens(document))
        if size <= over:
            limit = self.runner.info.num_ctx
            raise ContextLengthExceeded(size + over, limit, param="query", what="query")
        # What a cut text comes to may be a token more.
        for spare in (0, 1, 8, 32):
            shortened, _ = await self._cut(document, max(size - over - spare, 0))
            try:
                return await self._rank(request.query, shortened), True
            except ContextLengthExceeded:
                continue
        raise ContextLengthExceeded(size + over, self.runner.info.num_ctx, param=where, what="query and document")

    async def _rank(self, query: str, document: str) -> Ranked:
        if self.model.header.ranks:
            return await self.runner.rank(self._plain(query), self._plain(document))
        tokens = await tokenize_written(self.runner, self._written(query, document), "")
        words = [tuple(await self.runner.tokenize(word, special=False, bos=False)) for word in (_YES, _NO)]
        most = len(tokens) + max(map(len, words))
        if most > self.runner.info.num_ctx:
            raise ContextLengthExceeded(most, self.runner.info.num_ctx)
        (yes, no), _ = await label_logprobs(self.runner, tuple(tokens), words)
        return Ranked(yes - no, len(tokens))

    def _written(self, query: str, document: str) -> Written:
        """As in chats, only what the form writes is markup."""
        given = Given(texts=(query, document))
        disguise = Disguise.needed(self.runner.info.markup, given, QWEN3_PAIR)
        if disguise is None:
            return Written(_filled(query, document))
        hidden = disguise.given(given)
        return disguise.written(_filled(*hidden.texts))

    def _plain(self, text: str) -> str:
        """For an engine that reads control tokens out of its template's text, and so out of what stands in it."""
        places = [begin + 1 for begin in self._taken(text)]
        parts = (text[begin:end] for begin, end in zip([0, *places], [*places, len(text)], strict=True))
        return ZERO_WIDTH.join(parts)

    async def _cut(self, text: str, most: int) -> tuple[str, bool]:
        tokens = await self._tokens(text)
        if len(tokens) <= most:
            return text, False
        return (await self.runner.detokenize(tokens[:most])).decode(errors="ignore"), True

    async def _tokens(self, text: str) -> list[int]:
        return await self.runner.tokenize(text, special=False, bos=False)


def _filled(query: str, document: str) -> str:
    values = {"query": query, "document": document}
    return _PLACES.sub(lambda place: values[place[1]], QWEN3_PAIR)
