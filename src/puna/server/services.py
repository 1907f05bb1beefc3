"""What routes need, built once by `run` (or a test) and handed to them by closure."""

from __future__ import annotations

from dataclasses import dataclass, field

from puna.inference import Inference
from puna.scheduler.scheduler import Scheduler
from puna.server.ending import Ending
from puna.server.metrics import Metrics
from puna.server.thoughts import Thoughts
from puna.settings import Settings
from puna.sources.sources import Sources
from puna.state.state import State
from puna.store.library import Library
from puna.template.cage import Cage


@dataclass(frozen=True, slots=True)
class Services:
    """Settings, store, where models come from, scheduler, inference, the cage of templates and what is kept
    for callers of a running server."""

    settings: Settings
    library: Library
    sources: Sources
    scheduler: Scheduler
    inference: Inference
    cage: Cage
    metrics: Metrics
    state: State
    ending: Ending = field(default_factory=Ending)
    thoughts: Thoughts = field(default_factory=Thoughts)
