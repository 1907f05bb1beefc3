"""Options to the settings of one generation: precedence, seeds, and what this engine cannot do. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from puna.engine.runner import Feature, RunnerInfo, Sampling
from puna.errors import InvalidRequest, Unsupported
from puna.model.model import Model
from puna.model.parameters import IDLE
from puna.types import DEFAULT_OPTIONS, Options

T = TypeVar("T")

_SEEDS = 2**32 - 1
"""Seeds an engine takes: the largest 32-bit number means `random` to llama.cpp."""


@dataclass(frozen=True, slots=True)
class Decided:
    """Options after precedence; `ignored` names what the request said and has no effect, `ignored_parameters` what the
    model's own parameters say."""

    options: Options
    ignored: tuple[str, ...]
    ignored_parameters: tuple[str, ...]


def decide(asked: Options, model: Options, info: RunnerInfo) -> Decided:
    """Request, then the model's own parameters, then the engine's defaults.

    What the request says and the engine cannot do is refused, or reported where it changes no token; what only the
    model's parameters say is reported.
    """
    if asked.mirostat and Feature.MIROSTAT not in info.features:
        raise _cannot(info, "mirostat sampling", "mirostat")
    if asked.logit_bias:
        _check_bias(asked.logit_bias, info)
    options = asked.over(model).over(DEFAULT_OPTIONS)
    idle = (*IDLE, *info.without_effect)
    ignored, unused = (tuple(name for name in idle if getattr(said, name, None) is not None) for said in (asked, model))
    if options.mirostat and Feature.MIROSTAT not in info.features:
        unused += ("mirostat",)
        options = Options(mirostat=0).over(options)
    return Decided(options, ignored, unused)


def cut_context(asked: Options, model: Model, given: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A context beyond what the model was trained on, or may have, is cut: named as the request's, or the model's own.

    `given`: tokens of its runner's.
    """
    said = asked.num_ctx or model.options.num_ctx
    if said is None or said <= given:
        return (), ()
    return (("num_ctx",), ()) if asked.num_ctx is not None else ((), ("num_ctx",))


def require(info: RunnerInfo, feature: Feature, what: str, param: str) -> None:
    """Raises Unsupported naming `param` when the engine lacks `feature`."""
    if feature not in info.features:
        raise _cannot(info, what, param)


def _cannot(info: RunnerInfo, what: str, param: str) -> Unsupported:
    return Unsupported(f"the engine '{info.engine}' cannot do {what}", param=param)


def _check_bias(bias: tuple[tuple[int, float], ...], info: RunnerInfo) -> None:
    require(info, Feature.LOGIT_BIAS, "logit bias", "logit_bias")
    for token, _ in bias:
        if not 0 <= token < info.vocabulary:
            raise InvalidRequest(
                f"logit_bias: token {token} is not in the model's vocabulary of {info.vocabulary} tokens",
                param="logit_bias",
            )


def sampling(
    options: Options, *, max_tokens: int, seed: int, logprobs: int | None = None, cut: bool = False
) -> Sampling:
    """`options` must be whole, as `decide` makes them. `cut`: the run may be ended before the engine ends it."""
    return Sampling(
        max_tokens=max_tokens,
        seed=seed,
        temperature=_said(options.temperature),
        # Below 0 is another word for all of them.
        top_k=max(_said(options.top_k), 0),
        top_p=_said(options.top_p),
        min_p=_said(options.min_p),
        typical_p=_said(options.typical_p),
        repeat_last_n=_said(options.repeat_last_n),
        repeat_penalty=_said(options.repeat_penalty),
        presence_penalty=_said(options.presence_penalty),
        frequency_penalty=_said(options.frequency_penalty),
        mirostat=_said(options.mirostat),
        mirostat_tau=_said(options.mirostat_tau),
        mirostat_eta=_said(options.mirostat_eta),
        logit_bias=_said(options.logit_bias),
        ignore_eos=_said(options.ignore_eos),
        logprobs=logprobs,
        # An answer that a stop string may end has no End of its own to tell what was cached; nor has a closed thought.
        prefilled=cut or bool(options.stop),
    )


def _said(value: T | None) -> T:
    if value is None:
        raise AssertionError("an option is not decided")
    return value


def first_seed(seed: int | None, random: Callable[[], int]) -> int:
    """The seed of a request: its own, folded, or a fresh one."""
    return fold_seed(random() if seed is None or seed == -1 else seed)


def fold_seed(seed: int) -> int:
    """Any number to a seed an engine takes; those it takes stay."""
    return seed if 0 <= seed < _SEEDS else _hashed(str(seed))


def choice_seed(seed: int, index: int) -> int:
    """The seed of choice `index`: the first has the request's own, the others follow from it."""
    return seed if index == 0 else _hashed(f"{seed}/{index}")


def continued_seed(seed: int, closed: int) -> int:
    """The seed of what follows a thought that was closed for the `closed`-th time."""
    return _hashed(f"{seed}/closed {closed}")


def _hashed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % _SEEDS
