"""A way to start runners, and what it says of itself before it starts one. Pure, but for `Engine.start`.

Nothing above knows an engine by its name: who chooses compares Opinions, who reckons memory asks for it, and the table
of the documentation is made from Profiles.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from puna.engine.memory import Estimate, ModelLayout
from puna.engine.runner import Feature, LoadOptions, ModelFiles, Runner
from puna.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What an engine is and can do, with the model that lets it do most.

    `what`, `machines`, `families`, `types`, `seeds`: in words, for the documentation. `merit`: why it is taken, where
    it is. `slots`: how many requests at once it does well. `cache_types`: of LoadOptions, those that it keeps to.
    `gpu`: it can compute on one. `without_effect`: names of LoadOptions that mean nothing to it.
    """

    name: str
    what: str
    merit: str
    machines: str
    families: str
    types: str
    seeds: str
    slots: int
    features: frozenset[Feature]
    cache_types: frozenset[str]
    projectors: int = 0
    adapters: bool = False
    gpu: bool = False
    without_effect: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class ModelFacts:
    """What is known of a model before it is loaded. `types`: names of its tensors' types; `metadata`: its header's.

    `projectors`, `adapters`: how many there are. `encoders`: kinds of the projectors (`clip.projector_type`).
    `mixed`: a projector's tensors lie among the weights. `kinds`: it ranks pairs of texts by two kinds of tokens.
    """

    architecture: str
    types: frozenset[str]
    metadata: Mapping[str, object]
    layout: ModelLayout
    projectors: int = 0
    adapters: int = 0
    mixed: bool = False
    kinds: bool = False
    encoders: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Opinion:
    """What an engine says of one model, loaded as asked.

    `objection`: why it cannot run it here, in words; None if it can. `need`: bytes that it takes for one request at a
    time. `merit`, `slots`: as in Profile. `on_gpu`: it would compute on a GPU that this machine has.
    """

    engine: str
    objection: str | None
    need: int
    merit: str
    slots: int
    on_gpu: bool = False


class Engine(Protocol):
    """A way to start runners."""

    @property
    def name(self) -> str: ...

    @property
    def profile(self) -> Profile: ...

    def obstacle(self) -> str | None:
        """What keeps it from running any model here, in words; None if nothing does."""
        ...

    def opinion(self, model: ModelFacts, load: LoadOptions) -> Opinion:
        """Whether it can run the model, and at what cost. Asked for each request: it is quick, and starts nothing."""
        ...

    def memory(self, model: ModelFacts, load: LoadOptions) -> Estimate:
        """What a runner so loaded takes, a little high."""
        ...

    async def start(self, files: ModelFiles, load: LoadOptions, *, reason: str = "") -> Runner:
        """A ready Runner, or LoadFailed with the cause from the child, or LoadTimeout. Cancelled: no child stays."""
        ...

    async def prepare(self) -> None:
        """Do ahead what every start needs, if anything can be. Called when nothing else is to be done; may be repeated.

        LoadFailed if what it takes cannot be had: then a start will say so too.
        """
        ...

    async def close(self) -> None:
        """End what `prepare` began. Runners are not the engine's any more."""
        ...


class Unprepared:
    """What an engine is that has nothing to do ahead."""

    async def prepare(self) -> None:
        """See `Engine.prepare`."""

    async def close(self) -> None:
        """See `Engine.close`."""


class EngineFactory(Protocol):
    """What the roster names: the class of an engine."""

    profile: Profile

    def of(self, settings: Settings) -> Engine:
        """The engine of these settings. InvalidRequest where they are no good for it."""
        ...


def lacking(profile: Profile, load: LoadOptions, *, projectors: int, adapters: int) -> str | None:
    """What is asked for that no model would let this engine do. `projectors`, `adapters`: how many the model has."""
    name = profile.name
    if load.embedding and Feature.EMBED not in profile.features:
        return f"the {name} engine does not embed"
    if projectors > profile.projectors:
        most = {0: "no projectors", 1: "one projector"}.get(profile.projectors, f"{profile.projectors} projectors")
        return f"the {name} engine takes {most}, this model has {projectors}"
    if adapters and not profile.adapters:
        return f"the {name} engine takes no adapters"
    if load.num_gpu is not None and load.num_gpu > 0 and not profile.gpu:  # -1, Ollama's default: as the engine likes
        return f"layers are to go to a GPU (num_gpu), and the {name} engine uses none"
    if load.cache_type is not None and load.cache_type not in profile.cache_types:
        kinds = ", ".join(sorted(profile.cache_types))
        return f"the {name} engine has no cache of the type {load.cache_type} (it has {kinds})"
    return None
