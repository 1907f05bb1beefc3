"""The engines of this server, by name, in order of preference. None is imported before it is known to be wanted."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import cast

from puna.engine.engine import Engine, EngineFactory
from puna.roster import ROSTER, RosterEntry
from puna.settings import Settings
from puna.sources.packages import catalogue
from puna.store.library import StandIn


def engines(settings: Settings) -> dict[str, Engine]:
    """The one that `settings` name, or all that `auto` may take. InvalidRequest when a script is no good."""
    wanted = [entry for entry in ROSTER if entry.name == settings.engine or (settings.engine == "auto" and entry.auto)]
    return {entry.name: make(entry, settings) for entry in wanted}


def make(entry: RosterEntry, settings: Settings) -> Engine:
    return factory(entry).of(settings)


def factory(entry: RosterEntry) -> EngineFactory:
    """The class that the roster names."""
    module, _, name = entry.factory.partition(":")
    return cast(EngineFactory, getattr(import_module(module), name))


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
