"""A house to infer in: models without files, the real scheduler, the scripted engine."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from puna.engine.scripted import Script, ScriptedEngine
from puna.errors import ModelNotFound
from puna.inference import Inference
from puna.model.capabilities import Capability
from puna.model.digest import Digest
from puna.model.gguf import Header
from puna.model.manifest import Config, Layer, Manifest
from puna.model.model import Model
from puna.model.name import Name
from puna.scheduler.scheduler import Scheduler
from puna.settings import Settings
from puna.template.facts import ChatTemplate
from puna.template.languages import TemplateKey, compile_template
from puna.types import ChatRequest, CompletionRequest, Done, Event, Finished, Message, Started, TextDelta, ThinkingDelta

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_model(name: str = "m", template: str | None = CHATML, **changes: object) -> Model:
    digest = Digest.parse("sha256:" + "0" * 64)
    layer = Layer("application/octet-stream", digest, 0)
    metadata: dict[str, str | int] = {"llama.context_length": 4096, "llama.block_count": 1}
    if template is not None:
        metadata["tokenizer.chat_template"] = template
    model = Model(
        name=Name.parse(name),
        digest="0" * 64,
        manifest=Manifest(layer, ()),
        config=Config(),
        header=Header(version=3, architecture="llama", metadata=metadata, tensors=()),
        weights=Path("none.gguf"),
        weights_digest=digest,
        capabilities=frozenset({Capability.COMPLETION}),
        modified=datetime(2026, 1, 1, tzinfo=timezone.utc),
    )
    return replace(model, **changes)  # type: ignore[arg-type]


class Shelf:
    """Models by name."""

    def __init__(self, models: Mapping[str, Model]) -> None:
        self._models = models

    def known(self, name: Name) -> Model | None:
        return self._models.get(name.short.removesuffix(":latest"))

    def resolve(self, name: Name) -> Model:
        try:
            return self._models[name.short.removesuffix(":latest")]
        except KeyError:
            raise ModelNotFound(name.short) from None


class TemplatesHere:
    """Templates that are compiled and run in this process."""

    def known(self, key: TemplateKey) -> ChatTemplate:
        return compile_template(key)

    def open(self, key: TemplateKey) -> ChatTemplate:
        return compile_template(key)

    def read(self, key: TemplateKey) -> ChatTemplate:
        return compile_template(key)


@dataclass(frozen=True)
class House:
    """Inference with all below it."""

    inference: Inference
    scheduler: Scheduler

    @property
    def busy(self) -> int:
        """Requests that hold a lease."""
        return sum(place.users for place in self.scheduler._places.values())


@asynccontextmanager
async def open_house(
    script: Mapping[str, object] | None = None, *models: Model, context: int = 0, slots: int = 4
) -> AsyncIterator[House]:
    """Without models: the one named `m`. `context`: tokens, 0 for the default."""
    settings = Settings(models=Path("unused"), engine="scripted", context_length=context, num_parallel=slots)
    engine = ScriptedEngine(Script.parse(json.dumps(script or {})))
    shelf = Shelf({model.name.short.removesuffix(":latest"): model for model in models or (make_model(),)})
    async with Scheduler({"scripted": engine}, settings) as scheduler:
        yield House(Inference(shelf, scheduler, settings, TemplatesHere()), scheduler)


async def events_of(house: House, request: ChatRequest | CompletionRequest) -> list[Event]:
    inference = house.inference
    answer = inference.chat(request) if isinstance(request, ChatRequest) else inference.complete(request)
    async with answer as events:
        return [event async for event in events]


def ask(text: str = "Hi", **changes: object) -> ChatRequest:
    return ChatRequest(model="m", messages=(Message.of("user", text),), **changes)  # type: ignore[arg-type]


def text_of(events: list[Event], index: int = 0) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta) and event.index == index)


def thinking_of(events: list[Event], index: int = 0) -> str:
    return "".join(event.text for event in events if isinstance(event, ThinkingDelta) and event.index == index)


def finished_of(events: list[Event], index: int = 0) -> Finished:
    return next(event for event in events if isinstance(event, Finished) and event.index == index)


def started_of(events: list[Event]) -> Started:
    assert isinstance(events[0], Started)
    return events[0]


def done_of(events: list[Event]) -> Done:
    assert isinstance(events[-1], Done)
    return events[-1]
