"""Embeddings on one Runner: each input on its own, so that none depends on its neighbours."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from puna.engine.runner import Feature, Runner, RunnerInfo
from puna.errors import ContextLengthExceeded, EngineError, InvalidRequest, Unsupported
from puna.inference.length import check_least_beside
from puna.inference.sampling import cut_context, require
from puna.model.model import Model
from puna.types import Embeddings, EmbedRequest, Timings


def check_embed(model: Model, request: EmbedRequest) -> None:
    """Inputs without anything to embed are refused before the model is loaded. An empty text is one to embed."""
    if model.header.ranks:
        raise Unsupported(f'"{model.name.short}" does not support embeddings: it ranks documents', param="model")
    if not request.inputs:
        raise InvalidRequest("there is no input", param="input", code="empty_array")
    for place, item in enumerate(request.inputs):
        if item == ():
            raise InvalidRequest(f"input[{place}] is empty", param=f"input[{place}]")


async def embeddings(runner: Runner, model: Model, request: EmbedRequest, began: int, load_ns: int) -> Embeddings:
    """One normalised vector an input. Over-long inputs are cut (`truncate`) or refused by their index."""
    require(runner.info, Feature.EMBED, "embeddings", "model")
    _check_dimensions(request.dimensions, runner.info.embedding_length)
    limit = runner.info.num_ctx
    if not request.truncate:
        for place, item in enumerate(request.inputs):
            if isinstance(item, str):
                await check_least_beside([item], model.header, limit, param=f"input[{place}]", what="input")
    inputs = [await _tokens(runner, item, place) for place, item in enumerate(request.inputs)]
    cut, cut_parameters = cut_context(request.options, model, limit)
    long = tuple(place for place, tokens in enumerate(inputs) if len(tokens) > limit)
    if long and not request.truncate:
        raise ContextLengthExceeded(len(inputs[long[0]]), limit, param=f"input[{long[0]}]", what="input")
    ready = time.perf_counter_ns()
    fitting = [_cut(tokens, limit, runner.info.closes) for tokens in inputs]
    vectors = [_normalised(await runner.embed(tokens), request.dimensions) for tokens in fitting]
    now = time.perf_counter_ns()
    return Embeddings(
        vectors=tuple(vectors),
        prompt_tokens=sum(map(len, fitting)),
        timings=Timings(total=now - began, load=load_ns, prompt=now - ready),
        truncated=long,
        ignored=cut,
        ignored_parameters=(*model.ignored_parameters, *cut_parameters),
    )


def _cut(tokens: list[int], limit: int, closes: tuple[int, ...]) -> list[int]:
    """As many as fit. A text that has an end keeps it."""
    if len(tokens) <= limit:
        return tokens
    end = list(closes) if len(closes) < limit and tokens[-len(closes) :] == list(closes) else []
    return tokens[: limit - len(end)] + end


async def _tokens(runner: Runner, item: str | tuple[int, ...], place: int) -> list[int]:
    """A text as its model was trained on: with what begins and what ends it. Ids as they are given."""
    if isinstance(item, str):
        tokens = await runner.tokenize(item, special=True, bos=True)
        return (tokens or [_beginning(runner.info, place)]) + list(runner.info.closes)
    wrong = next((token for token in item if not 0 <= token < runner.info.vocabulary), None)
    if wrong is not None:
        raise InvalidRequest(
            f"input[{place}]: token {wrong} is not in the model's vocabulary of {runner.info.vocabulary} tokens",
            param=f"input[{place}]",
        )
    return list(item)


def _beginning(info: RunnerInfo, place: int) -> int:
    """An empty text is the beginning of one."""
    begin = info.bos if info.bos is not None else next(iter(info.eos), None)
    if begin is None:
        raise InvalidRequest(f"input[{place}] has no tokens", param=f"input[{place}]")
    return begin


def _check_dimensions(dimensions: int | None, size: int) -> None:
    if dimensions is not None and not 0 < dimensions <= size:
        raise InvalidRequest(f"dimensions must be from 1 to {size}, the size of this model's", param="dimensions")


def _normalised(vector: Sequence[float], dimensions: int | None) -> tuple[float, ...]:
    """The first `dimensions` of it, of length 1. Zero stays zero."""
    kept = vector if dimensions is None else vector[:dimensions]
    length = math.hypot(*kept)
    if not math.isfinite(length):
        raise EngineError("the engine's embedding contains NaN or infinity")
    return tuple(kept) if length == 0 else tuple(value / length for value in kept)
