import dataclasses

import pytest

from puna.errors import InvalidRequest
from puna.model.parameters import (
    LONGEST_STOP,
    MOST_STOPS,
    OBSOLETE,
    PARAMETERS,
    options_from_json,
    options_to_json,
    parse_parameter,
    stored_options,
)
from puna.types import DEFAULT_OPTIONS, NO_OPTIONS, JsonValue, Options


def test_every_option_is_a_parameter() -> None:
    ours_only = {"ignore_eos", "logit_bias"}
    assert PARAMETERS.keys() | ours_only == {field.name for field in dataclasses.fields(Options)}
    assert not PARAMETERS.keys() & OBSOLETE


def test_every_parameter_takes_its_fields_type() -> None:
    samples: dict[str, JsonValue] = {"int": 1, "float": 0.5, "bool": True, "texts": ["a"]}
    types = {"int": "int", "float": "float", "bool": "bool", "texts": "tuple[str, ...]"}
    for field in dataclasses.fields(Options):
        if field.name in PARAMETERS:
            kind = PARAMETERS[field.name].kind
            assert field.type == f"{types[kind]} | None"
            options, ignored = options_from_json({field.name: samples[kind]})
            assert (getattr(options, field.name), ignored) == (("a",) if kind == "texts" else samples[kind], ())


def test_json_round_trip() -> None:
    shape = options_to_json(DEFAULT_OPTIONS)
    options, ignored = options_from_json({key: value for key, value in shape.items() if key != "stop"})
    assert dataclasses.replace(options, stop=(), ignore_eos=False, logit_bias=()) == DEFAULT_OPTIONS
    assert ignored == ()


def test_unknown_and_obsolete_are_named_and_nulls_are_absent() -> None:
    options, ignored = options_from_json(
        {"zeta": 1, "f16_kv": True, "seed": None, "top_k": 5.0, "eta": None, "num_keep": None}
    )
    assert (options, ignored) == (Options(top_k=5), ("f16_kv", "zeta"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("temperature", "hot"), ("temperature", True), ("temperature", -0.1), ("temperature", float("nan"))),
        *(("temperature", float("inf")), ("temperature", 10**400), ("num_ctx", 0), ("num_ctx", 0.5)),
        *(("num_ctx", "4096"), ("num_ctx", True), ("num_ctx", 2**63), ("num_ctx", float("inf")), ("num_ctx", [1])),
        *(("top_p", 1.5), ("use_mmap", 1), ("use_mmap", "true"), ("stop", [1]), ("stop", [""]), ("stop", {})),
        *(("repeat_penalty", 0), ("repeat_penalty", 0.0), ("repeat_penalty", -1), ("repeat_penalty", 1e-300)),
        *(("temperature", 1e300), ("presence_penalty", 1e39), ("frequency_penalty", -1e39), ("mirostat_tau", -1)),
        *(("mirostat_eta", -0.1), ("typical_p", 1.1), ("min_p", -0.1), ("repeat_last_n", -2), ("top_k", -2)),
        *(("mirostat", 3), ("num_predict", -3), ("seed", 2**64), ("presence_penalty", float("nan"))),
    ],
    ids=lambda item: f"{item!r:.20}",
)
def test_refused_by_name(name: str, value: JsonValue) -> None:
    with pytest.raises(InvalidRequest) as caught:
        options_from_json({name: value})
    assert caught.value.param == f"options.{name}"
    assert name in caught.value.message


@pytest.mark.parametrize(
    ("name", "value", "cut"),
    [
        ("num_predict", 12.7, 12),
        ("num_predict", -1.9, -1),
        ("seed", 1.5, 1),
        ("top_k", 0.9, 0),
        ("num_ctx", 4096.5, 4096),
    ],
)
def test_a_fraction_where_a_whole_number_stands_is_cut_and_named(name: str, value: float, cut: int) -> None:
    assert options_from_json({name: value}) == (Options(**{name: cut}), (name,))  # type: ignore[arg-type]


@pytest.mark.parametrize("stops", [["a"] * (MOST_STOPS + 1), ["a" * (LONGEST_STOP + 1)]], ids=["many", "long"])
def test_stop_strings_that_are_too_many_or_too_long(stops: list[JsonValue]) -> None:
    """Each is looked for in each piece of an answer, beside everybody else's."""
    with pytest.raises(InvalidRequest) as refusal:
        options_from_json({"stop": stops})
    assert refusal.value.param == "options.stop"
    assert len(refusal.value.message) < 100
    assert stored_options({"stop": stops}) == (NO_OPTIONS, ("stop",))
    kept, ignored = options_from_json(
        {"stop": [text[:LONGEST_STOP] for text in stops[:MOST_STOPS] if isinstance(text, str)]}
    )
    assert kept.stop
    assert ignored == ()


def test_stored_parameters_are_never_refused() -> None:
    stored: dict[str, JsonValue] = {"temperature": "hot", "stop": "x", "tfs_z": 1, "top_k": 3, "num_ctx": "4096"}
    assert stored_options({**stored, "seed": 1.5, "num_predict": None}) == (
        Options(stop=("x",), top_k=3, seed=1),
        ("num_ctx", "seed", "temperature", "tfs_z"),
    )


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        *(("num_ctx", "4096", 4096), ("temperature", "0.5", 0.5), ("temperature", "1", 1.0), ("stop", "a b", ["a b"])),
        *(("use_mmap", "T", True), ("use_mmap", "false", False), ("f16_kv", "what", "what")),
    ],
)
def test_text(name: str, text: str, value: JsonValue) -> None:
    assert parse_parameter(name, text) == value


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("num_ctx", "many", r"invalid int value \[many\]"),
        ("temperature", "hot", r"invalid float value \[hot\]"),
        ("temperature", "nan", "temperature"),
        ("use_mmap", "yes", r"invalid bool value \[yes\]"),
        ("warmth", "1", "unknown parameter 'warmth'"),
        ("top_p", "2", "from 0 to 1"),
    ],
)
def test_text_refused(name: str, text: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message) as caught:
        parse_parameter(name, text)
    assert caught.value.param == name


@pytest.mark.parametrize("value", [2**63, 10**30])
def test_a_stored_context_of_any_length_counts(value: int) -> None:
    """It is cut to what the model was trained on, and reported."""
    assert stored_options({"num_ctx": value}) == (Options(num_ctx=2**63 - 1), ())
