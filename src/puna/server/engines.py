"""The engines that this installation has, by name. None is imported before it is known to be wanted."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec

from puna.engine.runner import Engine
from puna.errors import InvalidRequest
from puna.settings import Settings
from puna.sources import catalogue
from puna.store.library import StandIn


def engines(settings: Settings) -> dict[str, Engine]:
    """What `settings` allow and what is installed. InvalidRequest when the script that they name is no good."""
    if settings.engine == "scripted":
        return {"scripted": _scripted(settings)}
    found: dict[str, Engine] = {}
    if find_spec("openvino") is not None:
        from puna.engine.cpu.client import CpuEngine

        found["cpu"] = CpuEngine(settings)
    if find_spec("xllamacpp") is not None:
        from puna.engine.llama.engine import LlamaEngine

        found["llama"] = LlamaEngine(settings)
    if settings.llama_server is not None:
        from puna.engine.llama.engine import LlamaServerEngine

        found["llama-server"] = LlamaServerEngine(settings)
    return found


def _scripted(settings: Settings) -> Engine:
    from puna.engine.scripted import Script, ScriptedEngine

    if settings.script is None:
        raise InvalidRequest("The scripted engine needs a script: set PUNA_SCRIPT.")
    return ScriptedEngine(Script.read(settings.script))


def stand_in_for(found: Mapping[str, Engine]) -> StandIn:
    """What answers for a name that is not stored: a script for all; else the catalogue's model under another name."""
    engine = found.get("scripted")
    if engine is None:
        return catalogue.stand_in
    from puna.engine.scripted import ScriptedEngine
    from puna.engine.stand_in import stand_in

    assert isinstance(engine, ScriptedEngine)
    script = engine.script
    return lambda name, stored: None if script.model(name.short).missing else stand_in(name)
