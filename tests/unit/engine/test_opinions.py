"""What the engines of the roster say of models: what `cpu` could not do goes to `llama`, or is refused by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from puna.engine.choose import EngineChoice, choose
from puna.engine.cpu import library
from puna.engine.cpu.client import CpuEngine
from puna.engine.cpu.supported import Machine
from puna.engine.engine import ModelFacts, Opinion
from puna.engine.llama.engine import LlamaEngine
from puna.engine.memory import shape
from puna.engine.runner import LoadOptions
from puna.errors import Unsupported
from puna.roster import NAMES, ROSTER
from puna.server.engines import engines, make
from puna.settings import Settings

SETTINGS = Settings(models=Path("none"))
MODEL = ModelFacts(
    architecture="llama",
    types=frozenset({"F32", "Q4_1"}),
    metadata={"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "smollm"},
    layout=shape(weights=98_000_000, vocabulary=49152, embedding=576, blocks=30, heads=9, kv_heads=3),
)
LOAD = LoadOptions(num_ctx=4096, slots=1)


def cpu(machine: Machine | None = None, trouble: str | None = None) -> CpuEngine:
    """Whether or not its library is built here."""
    return CpuEngine(SETTINGS, machine, lambda: trouble)


def auto(model: ModelFacts = MODEL, load: LoadOptions = LOAD, engine: CpuEngine | None = None) -> EngineChoice:
    found = (engine or cpu(), LlamaEngine(SETTINGS))
    return choose("auto", [engine.opinion(model, load) for engine in found], None)


def test_cpu_wherever_it_can_run_the_model() -> None:
    choice = auto()
    assert (choice.engine, choice.slots) == ("cpu", 16)
    assert "faster" in choice.reason
    assert choice.instead is not None
    assert (choice.instead.engine, choice.instead.slots) == ("llama", 4)


@pytest.mark.parametrize(("contexts", "slots"), [(1.5, 1), (2.5, 2), (100, 4)])
def test_memory_for_caches_bounds_the_slots_of_llama(contexts: float, slots: int) -> None:
    one = LlamaEngine(SETTINGS).memory(MODEL, LOAD).cache
    bounded = LlamaEngine(replace(SETTINGS, cache_memory=int(contexts * one)))
    assert bounded.opinion(MODEL, LOAD).slots == slots


@pytest.mark.parametrize("engine", [CpuEngine, LlamaEngine])
def test_one_context_has_to_fit_into_the_memory_for_caches(engine: type[CpuEngine | LlamaEngine]) -> None:
    one = engine(SETTINGS).memory(MODEL, LOAD).cache
    bounded = engine(replace(SETTINGS, cache_memory=one // 2))
    objection = bounded.opinion(MODEL, LOAD).objection
    assert objection is not None
    assert "PUNA_CACHE_MEMORY" in objection
    assert "num_ctx 2048 would fit" in objection
    assert "PUNA_CACHE_MEMORY" not in (bounded.opinion(MODEL, replace(LOAD, num_ctx=2048)).objection or "")
    tiny = engine(replace(SETTINGS, cache_memory=1)).opinion(MODEL, LOAD).objection
    assert tiny is not None
    assert "not even" in tiny


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"architecture": "mamba"}, "mamba"),
        ({"types": frozenset({"IQ1_S"})}, "IQ1_S"),
        ({"metadata": {"tokenizer.ggml.model": "bert"}}, "bert"),
        ({"projectors": 1}, "projector"),
        ({"adapters": 1}, "adapters"),
    ],
)
def test_a_model_that_it_cannot_run_goes_to_llama_with_the_reason(changes: dict[str, object], why: str) -> None:
    model = replace(MODEL, **changes)  # type: ignore[arg-type]
    choice = auto(model)
    assert choice.engine == "llama"
    assert why in choice.reason
    with pytest.raises(Unsupported, match=why):
        choose("cpu", [cpu().opinion(model, LOAD)], None)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"embedding": True}, "embed"),
        ({"num_gpu": 10}, "GPU"),
        ({"cache_type": "q4_0"}, "q4_0"),
    ],
)
def test_so_does_a_way_to_load_that_it_has_not(changes: dict[str, object], why: str) -> None:
    load = replace(LOAD, **changes)  # type: ignore[arg-type]
    choice = auto(load=load)
    assert choice.engine == "llama"
    assert why in choice.reason
    with pytest.raises(Unsupported, match=why):
        choose("cpu", [cpu().opinion(MODEL, load)], None)


@pytest.mark.parametrize("layers", [None, 0, -1])
def test_no_wish_for_a_gpu_is_none(layers: int | None) -> None:
    """Ollama's clients send -1 for "as you like"."""
    assert auto(load=replace(LOAD, num_gpu=layers)).engine == "cpu"


def test_a_cache_of_the_type_that_it_has_is_its_own() -> None:
    assert auto(load=replace(LOAD, cache_type="f16")).engine == "cpu"


def test_a_machine_that_it_cannot_run_on_is_a_reason() -> None:
    choice = auto(engine=cpu(Machine("Windows", "amd64", sockets=False)))
    assert choice.engine == "llama"
    assert "socket" in choice.reason


def test_a_library_that_is_not_there_is_one_too() -> None:
    choice = auto(engine=cpu(trouble="the cpu engine's library could not be built: no zig"))
    assert (choice.engine, choice.reason) == ("llama", "the cpu engine's library could not be built: no zig")
    assert CpuEngine(SETTINGS).obstacle() == library.why_not()


def test_llama_takes_one_projector() -> None:
    assert LlamaEngine(SETTINGS).opinion(replace(MODEL, projectors=1), LOAD).objection is None
    assert "one projector" in (LlamaEngine(SETTINGS).opinion(replace(MODEL, projectors=2), LOAD).objection or "")


def test_a_wheel_that_uses_a_gpu_says_so_unless_it_is_told_not_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    wheel = LlamaEngine(SETTINGS)
    assert wheel.opinion(MODEL, LOAD).on_gpu
    assert not wheel.opinion(MODEL, replace(LOAD, num_gpu=0)).on_gpu


def test_auto_asks_those_of_the_roster_that_need_no_name(tmp_path: Path) -> None:
    assert list(engines(SETTINGS)) == ["cpu", "llama"]
    script = tmp_path / "script.json"
    script.write_text("{}")
    for entry in ROSTER:
        settings = Settings(models=Path("none"), engine=entry.name, script=script)
        (engine,) = engines(settings).values()
        assert engine.name == engine.profile.name == entry.name
        opinion = engine.opinion(MODEL, LOAD)
        assert isinstance(opinion, Opinion)
        assert opinion.engine == entry.name
        assert opinion.slots == engine.profile.slots
        assert opinion.need == engine.memory(MODEL, LOAD).total < engine.memory(MODEL, replace(LOAD, slots=2)).total


def test_every_name_of_the_roster_is_a_setting() -> None:
    for name in NAMES:
        assert Settings.from_environment({"PUNA_ENGINE": name, "PUNA_MODELS": "x"}).engine == name


def test_a_binary_that_nobody_named_is_an_obstacle() -> None:
    entry = next(entry for entry in ROSTER if entry.name == "llama-server")
    assert "PUNA_LLAMA_SERVER" in (make(entry, SETTINGS).obstacle() or "")
