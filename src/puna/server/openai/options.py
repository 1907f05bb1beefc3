"""Settings of loading and sampling: their contract, and what they become. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, TypeAlias, cast

from pydantic import Discriminator, Field, Tag

from puna.errors import InvalidRequest
from puna.model.parameters import LONGEST_STOP
from puna.server.contract.options import KeepAlive, overruled, read_options, within
from puna.server.contract.shapes import UNION, Honoured, Int64, JsonObject, Reported, Shape
from puna.server.openai.output import Shaped
from puna.types import NO_OPTIONS, Options

StopString = Annotated[str, Field(min_length=1, max_length=LONGEST_STOP)]


def _string_or_array(value: object) -> str | None:
    return "string" if isinstance(value, str) else "array" if isinstance(value, list) else None


Stop: TypeAlias = Annotated[
    Annotated[StopString, Tag("string")] | Annotated[list[StopString], Field(max_length=4), Tag("array")],
    Discriminator(_string_or_array, custom_error_type=UNION, custom_error_message="a string or an array of strings"),
]


class StreamOptions(Shape):
    include_usage: Annotated[bool | None, Honoured("A last chunk with the usage of all choices.")] = None
    include_obfuscation: Annotated[
        bool | None, Honoured("Pads each chunk with random text. Off unless asked for: this server is on your machine.")
    ] = None


USER_MEANING = "Nothing here tells users apart."


class Extras(Shape):
    """What clients of local servers send besides OpenAI's fields; the Python client through `extra_body`."""

    options: Annotated[JsonObject | None, Honoured("Ollama's options. A field of the request wins over them.")] = None
    keep_alive: Annotated[
        KeepAlive | None,
        Honoured("How long the model stays loaded: seconds, or a duration such as `5m`; negative: for ever."),
    ] = None
    num_ctx: Annotated[
        int | None,
        within("num_ctx"),
        Honoured("The context to load the model with, in tokens; no more than it was trained on."),
    ] = None


class Drawing(Extras):
    """How tokens are drawn: fields of every endpoint that generates."""

    temperature: Annotated[
        float | None,
        Field(ge=0, le=2),
        Honoured("Absent: as the model's own parameters say. 0: always the likeliest token."),
    ] = None
    top_p: Annotated[float | None, within("top_p"), Honoured("Nucleus sampling.")] = None
    frequency_penalty: Annotated[float | None, Field(ge=-2, le=2), Honoured("Against frequent tokens.")] = None
    presence_penalty: Annotated[float | None, Field(ge=-2, le=2), Honoured("Against tokens that were there.")] = None
    logit_bias: Annotated[
        dict[str, Annotated[float, Field(ge=-100, le=100)]] | None,
        Honoured("Token id to a bias from -100 (never) to 100 (always)."),
    ] = None
    seed: Annotated[
        Int64 | None,
        Honoured("The same seed gives the same answer; header `x-puna-seed` says `exact` or `best-effort`."),
    ] = None
    stop: Annotated[Stop | None, Honoured("Up to 4 strings that end the answer and are not part of it.")] = None
    top_k: Annotated[int | None, within("top_k"), Honoured("Only the k likeliest tokens; 0 or -1: all.")] = None
    min_p: Annotated[
        float | None, within("min_p"), Honoured("Only tokens at least this likely, the likeliest being 1.")
    ] = None
    typical_p: Annotated[float | None, within("typical_p"), Honoured("Locally typical sampling; 1: off.")] = None
    repeat_penalty: Annotated[float | None, within("repeat_penalty"), Honoured("Against repeated tokens; 1: off.")] = (
        None
    )
    repetition_penalty: Annotated[
        float | None, within("repeat_penalty"), Honoured("Another name of `repeat_penalty`.")
    ] = None
    repeat_last_n: Annotated[
        int | None, within("repeat_last_n"), Honoured("How many tokens back penalties look; -1: all of the context.")
    ] = None
    mirostat: Annotated[int | None, within("mirostat"), Honoured("Mirostat version; 0: off.")] = None
    mirostat_tau: Annotated[float | None, within("mirostat_tau"), Honoured("Mirostat's target.")] = None
    mirostat_eta: Annotated[float | None, within("mirostat_eta"), Honoured("Mirostat's rate.")] = None
    ignore_eos: Annotated[bool | None, Honoured("Go on after an end-of-answer token.")] = None


class Sampled(Drawing, Shaped):
    """Fields of the endpoints that give `n` choices."""

    n: Annotated[int | None, Field(ge=1, le=128), Honoured("How many answers.")] = None
    stream: Annotated[bool | None, Honoured("Server-sent events.")] = None
    stream_options: Annotated[StreamOptions | None, Honoured("Only with `stream`.")] = None
    user: Annotated[str | None, Reported(USER_MEANING)] = None


# ------------------------------------------------------------------------------------------------ what they become


@dataclass(frozen=True, slots=True)
class Asked:
    """Options of a request, the paths of those without effect, and what the request calls each of them."""

    options: Options
    ignored: tuple[str, ...]
    names: dict[str, str]


def sampled_options(body: Drawing, max_tokens: int | None) -> Asked:
    """The fields of the request over its `options`."""
    base = load_options(body)
    said = Options(
        num_predict=max_tokens,
        stop=(body.stop,) if isinstance(body.stop, str) else None if body.stop is None else tuple(body.stop),
        ignore_eos=body.ignore_eos,
        # To OpenAI every number is a seed; in the house's options -1 says `random`.
        seed=2**64 - 1 if body.seed == -1 else body.seed,
        temperature=body.temperature,
        top_k=body.top_k,
        top_p=body.top_p,
        min_p=body.min_p,
        typical_p=body.typical_p,
        repeat_last_n=body.repeat_last_n,
        repeat_penalty=one_of(body, "repeat_penalty", "repetition_penalty"),
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        mirostat=body.mirostat,
        mirostat_tau=body.mirostat_tau,
        mirostat_eta=body.mirostat_eta,
        logit_bias=None if body.logit_bias is None else tuple(_biases(body.logit_bias)),
    )
    # The request's own fields win over `options`, so an error is about them.
    nested = {name: path for name, path in base.names.items() if getattr(said, name, None) is None}
    ignored = (*base.ignored, *overruled(base.options, said))
    return Asked(said.over(base.options), ignored, {"num_predict": "max_tokens", **nested})


def load_options(body: Extras, *, loading: bool = False) -> Asked:
    """`options` and `num_ctx`. `loading`: nothing is generated, so options of sampling have no effect."""
    options, ignored = read_options(body.options, loading=loading)
    said = NO_OPTIONS if body.num_ctx is None else Options(num_ctx=body.num_ctx)
    names = {name: f"options.{name}" for name in body.options or {} if name != "num_ctx" or body.num_ctx is None}
    return Asked(said.over(options), (*ignored, *overruled(options, said)), names)


def _biases(bias: Mapping[str, float]) -> Iterator[tuple[int, float]]:
    for key, value in bias.items():
        if not (key.isascii() and key.isdigit() and len(key) <= 10):
            raise InvalidRequest(
                f"Invalid key in 'logit_bias': '{key[:100]}'. Expected a token id.", param="logit_bias"
            )
        yield int(key), value


def one_of(body: Shape, name: str, alias: str) -> int | None:
    """The value of a field with two names."""
    first, second = getattr(body, name), getattr(body, alias)
    if first is not None and second is not None and first != second:
        raise InvalidRequest(
            f"'{alias}' and '{name}' are the same setting, but were given different values.", param=alias
        )
    return cast("int | None", first if first is not None else second)
