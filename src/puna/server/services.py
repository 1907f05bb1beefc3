"""What routes need, built once by `run` (or a test) and handed to them by closure."""

from __future__ import annotations

from dataclasses import dataclass, field

from puna.inference import Inference
from puna.scheduler.scheduler import Scheduler
from puna.server.ending import Ending
from puna.settings import Settings
from puna.sources.sources import Sources
from puna.store.library import Library


@dataclass(frozen=True, slots=True)
class Services:
    """Settings, store, where models come from, scheduler and inference of a running server."""

    settings: Settings
    library: Library
    sources: Sources
    scheduler: Scheduler
    inference: Inference
    ending: Ending = field(default_factory=Ending)
