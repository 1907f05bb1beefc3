"""Listed: what a list says of a model. Small, and kept between lists, so that listing thousands reads none of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from puna.model.name import Name

if TYPE_CHECKING:
    from puna.model.model import Model
    from puna.types import JsonValue


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """The facts of its manifest, its config and its files. `parent`: the short Name, or the file, it came from.

    `weights`: what stands for its weights, 64 hex digits. `num_ctx`: the context that it is stored to be loaded with.
    """

    digest: str
    size: int
    parent: str
    format: str
    family: str
    families: tuple[str, ...]
    parameter_size: str
    quantization: str
    context_length: int | None
    embedding_length: int | None
    capabilities: tuple[str, ...]
    weights: str
    num_ctx: int | None

    @classmethod
    def of(cls, model: Model) -> Label:
        # Who lists what was said before needs none of what a model is.
        from puna.model.capabilities import words
        from puna.model.model import size_text

        config, header = model.config, model.header
        family = config.model_family or header.architecture
        first = model.manifest.layers[0] if model.manifest.layers else None
        return cls(
            digest=model.digest,
            size=model.size,
            parent=(first.from_ or "") if first is not None else "",
            format=config.model_format,
            family=family,
            families=config.model_families or (family,),
            parameter_size=config.model_type or size_text(header.parameter_count),
            quantization=config.file_type or header.quantization,
            context_length=header.context_length or None,
            embedding_length=header.embedding_length or None,
            capabilities=words(model.capabilities),
            weights=model.weights_digest.hex,
            num_ctx=model.options.num_ctx,
        )

    def dump(self) -> list[JsonValue]:
        """For `load`."""
        families: list[JsonValue] = [*self.families]
        capabilities: list[JsonValue] = [*self.capabilities]
        manifest: list[JsonValue] = [self.digest, self.size, self.parent, self.format, self.family, families]
        file: list[JsonValue] = [self.parameter_size, self.quantization, self.context_length, self.embedding_length]
        return [*manifest, *file, capabilities, self.weights, self.num_ctx]

    @classmethod
    def load(cls, values: Sequence[JsonValue]) -> Label:
        """ValueError or TypeError when it is none."""
        digest, size, parent, format_, family, families, *facts = values
        parameters, quantization, context, embedding, able, weights, num_ctx = facts
        texts = (digest, parent, format_, family, parameters, quantization, weights)
        if not all(isinstance(text, str) for text in texts) or not isinstance(size, int):
            raise TypeError("no details of a model")
        if not isinstance(families, list) or not isinstance(able, list):
            raise TypeError("no details of a model")
        return cls(
            digest=str(digest),
            size=size,
            parent=str(parent),
            format=str(format_),
            family=str(family),
            families=tuple(map(str, families)),
            parameter_size=str(parameters),
            quantization=str(quantization),
            context_length=context if isinstance(context, int) else None,
            embedding_length=embedding if isinstance(embedding, int) else None,
            capabilities=tuple(map(str, able)),
            weights=str(weights),
            num_ctx=num_ctx if isinstance(num_ctx, int) else None,
        )


@dataclass(frozen=True, slots=True)
class Listed:
    """A model of a list. `modified`: UTC."""

    name: Name
    modified: datetime
    label: Label

    @classmethod
    def of(cls, model: Model) -> Listed:
        return cls(model.name, model.modified, Label.of(model))


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A model that cannot be used, and why."""

    name: Name
    reason: str
