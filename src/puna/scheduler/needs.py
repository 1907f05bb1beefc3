"""Needs: what one request needs of the scheduler, in the words of its policy, and what it takes to fulfil that."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from itertools import count, takewhile
from typing import TYPE_CHECKING

from puna.engine.choose import EngineChoice
from puna.engine.engine import Engine, ModelFacts, Opinion
from puna.engine.memory import Estimate, largest_context
from puna.engine.runner import LoadOptions, ModelFiles
from puna.scheduler import policy
from puna.scheduler.facts import context_of, facts_of, files_of, trained
from puna.scheduler.policy import Key, Wish
from puna.scheduler.reckoning import Reckoning
from puna.settings import ModelPolicy, Settings
from puna.types import Options

if TYPE_CHECKING:
    from puna.model.model import Model
    from puna.model.name import Name

Choose = Callable[[str, Sequence[Opinion], int | None], EngineChoice]
"""Which engine runs a model: the setting, what the engines say, and the bytes there are for it (None: no matter)."""

_LOAD_FIELDS = frozenset(item.name for item in fields(LoadOptions)) & frozenset(item.name for item in fields(Options))


@dataclass(frozen=True, slots=True)
class Need:
    """A request's Wish, with what it takes to fulfil it. `policy`: how its model is kept."""

    wish: Wish
    model: Model
    choice: EngineChoice
    files: ModelFiles
    keep_alive: float | None
    policy: ModelPolicy


class Needs:
    """Makes them. Engines are asked once for what they say of the same. `free_memory`: bytes the system could give."""

    def __init__(
        self, engines: Mapping[str, Engine], settings: Settings, free_memory: Callable[[], int], choose: Choose
    ) -> None:
        self._engines = engines
        self._settings = settings
        self._free_memory = free_memory
        self._choose = choose
        self._facts: dict[str, ModelFacts] = {}
        self._opinions = lru_cache(maxsize=256)(self._ask)
        self._memory = lru_cache(maxsize=1024)(self._reckon)
        self._sizes = lru_cache(maxsize=1024)(self._reckon_sizes)

    def need(
        self, model: Model, options: Options, keep_alive: float | None, *, embedding: bool, room: int | None
    ) -> Need:
        """`room`: as in `choice`. Raises as it does, and InvalidRequest for its num_ctx."""
        choice = self.choice(model, options, embedding=embedding, room=room)
        load = self._load_options(model, options, embedding)
        load = replace(load, slots=self.slots(model, load, choice.slots))
        if not self._engines[choice.engine].profile.gpu:
            load = replace(load, num_gpu=0)  # so that nobody who says it has the model loaded anew
        key = Key(
            weights=str(model.weights_digest),
            adapters=tuple(str(path) for path in model.adapters),
            projectors=tuple(str(path) for path in model.projectors),
            embedding=embedding,
        )
        sizes = self._sizes(choice.engine, self._known(model), load)
        said = frozenset(name for name in _LOAD_FIELDS if getattr(options, name) is not None)
        policy = self._settings.policy_of(model.name.short)
        wish = Wish(key, load, said, sizes[:1] if self._fixed(model) else sizes, policy.priority)
        return Need(wish, model, choice, files_of(model), keep_alive, policy)

    def choice(self, model: Model, options: Options, *, embedding: bool, room: int | None) -> EngineChoice:
        """Which engine would run the model, and why. Unsupported when none can.

        `room`: bytes that could be had for it; None: it does not matter, for this model has what it needs.
        """
        load = self._load_options(model, options, embedding)
        return self._choose(self._settings.engine, self._opinions(self._known(model), load), room)

    def reckon(self, model: Model, options: Options, *, embedding: bool, available: int) -> Reckoning:
        """See `Scheduler.reckon`. `available`: bytes that could be had."""
        known = self._known(model)
        load = self._load_options(model, options, embedding)
        choice = self._choose(self._settings.engine, self._opinions(known, load), None)
        load = replace(load, slots=self.slots(model, load, choice.slots))
        return Reckoning(
            engine=choice.engine,
            reason=choice.reason,
            num_ctx=load.num_ctx,
            slots=load.slots,
            estimate=self._memory(choice.engine, known, load),
            available=available,
            largest=self._largest(choice.engine, model, load, available),
            least_slots=self._least_slots(model, load),
        )

    def largest(self, need: Need, available: int) -> int | None:
        """The largest context that would fit into so many bytes, for as few requests at once as may be."""
        return self._largest(need.choice.engine, need.model, need.wish.load, available)

    def available(self, held: int) -> int:
        """Bytes that models could have, the `held` ones of those that are loaded now included."""
        return self._settings.memory_limit or int(self._free_memory() * policy.HEADROOM) + held

    def context(self, model: Model, options: Options) -> int:
        """Tokens that a request with these options would have for its prompt and answer."""
        return self.context_of(model.name, options.num_ctx, model.header.context_length)

    def context_of(self, name: Name, said: int | None, trained: int | None) -> int:
        """Tokens that a model of this Name gets where so many are said, and it was trained on so many."""
        most = self._settings.policy_of(name.short).max_ctx
        given = context_of(said, self._settings.context_length, trained)
        return given if most is None else min(given, most)

    def slots(self, model: Model, load: LoadOptions, advised: int) -> int:
        """Requests at once."""
        policy = self._settings.policy_of(model.name.short)
        return 1 if load.embedding else policy.parallel or self._settings.num_parallel or advised

    def _ask(self, model: ModelFacts, load: LoadOptions) -> tuple[Opinion, ...]:
        """What the engines say, in the order in which they are preferred."""
        return tuple(engine.opinion(model, load) for engine in self._engines.values())

    def _reckon_sizes(self, engine: str, model: ModelFacts, load: LoadOptions) -> tuple[tuple[int, int], ...]:
        """(slots, bytes) for the slots asked for, and each halving of them: what may be tried when memory is short."""
        halvings = takewhile(bool, (load.slots >> times for times in count()))
        return tuple((slots, self._memory(engine, model, replace(load, slots=slots)).total) for slots in halvings)

    def _reckon(self, engine: str, model: ModelFacts, load: LoadOptions) -> Estimate:
        return self._engines[engine].memory(model, load)

    def _fixed(self, model: Model) -> bool:
        """Whether a setting says how many requests it answers at once."""
        return bool(self._settings.policy_of(model.name.short).parallel or self._settings.num_parallel)

    def _least_slots(self, model: Model, load: LoadOptions) -> int:
        """With which it is loaded where memory is short."""
        return load.slots if self._fixed(model) else 1

    def _largest(self, engine: str, model: Model, load: LoadOptions, available: int) -> int | None:
        known, least = self._known(model), replace(load, slots=self._least_slots(model, load))

        def need(num_ctx: int) -> int:
            wanted = replace(least, num_ctx=num_ctx)
            objection = self._engines[engine].opinion(known, wanted).objection
            return self._memory(engine, known, wanted).total if objection is None else sys.maxsize

        return largest_context(need, available, trained(known))

    def _known(self, model: Model) -> ModelFacts:
        """Looked at once for each model, for every request needs it."""
        if model.digest not in self._facts:
            self._facts[model.digest] = facts_of(model)
        return self._facts[model.digest]

    def _load_options(self, model: Model, options: Options, embedding: bool) -> LoadOptions:
        """But for the slots, which the engine advises."""
        settings = self._settings
        return LoadOptions(
            num_ctx=self.context(model, options),
            slots=1,
            num_batch=options.num_batch,
            num_thread=options.num_thread,
            num_gpu=options.num_gpu,
            main_gpu=options.main_gpu,
            use_mmap=options.use_mmap,
            flash_attention=settings.flash_attention,
            cache_type=settings.kv_cache_type,
            embedding=embedding,
        )
