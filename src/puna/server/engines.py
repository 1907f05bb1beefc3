"""The engines that this installation has, by name. None is imported before it is known to be wanted."""

from __future__ import annotations

from importlib.util import find_spec

from puna.engine.runner import Engine
from puna.errors import InvalidRequest
from puna.settings import Settings


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
