"""Which files of a repository a tag means: the weights in one quantisation, all shards, and their projector. Pure.

The rule is Ollama's and the hub's: a tag is a quantisation, in any case, or a file's name; no tag is Q4_K_M where it is
there, else the first of ORDER that is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from puna.errors import SourceNotFound, Unsupported
from puna.model.name import DEFAULT_TAG
from puna.model.shards import ShardName
from puna.sources.hub.repository import RepoFile

ORDER = (
    "Q4_K_M", "Q4_K_XL", "Q4_K_L", "Q4_K_S", "Q4_K", "Q4_0", "Q4_1", "IQ4_XS", "IQ4_NL", "MXFP4", "MXFP4_MOE",
    "Q5_K_M", "Q5_K_XL", "Q5_K_S", "Q5_K", "Q5_0", "Q5_1", "Q6_K", "Q6_K_XL", "Q8_0", "Q8_K_XL",
    "Q3_K_XL", "Q3_K_L", "Q3_K_M", "Q3_K_S", "IQ3_M", "IQ3_S", "IQ3_XS", "IQ3_XXS",
    "Q2_K_XL", "Q2_K_L", "Q2_K", "IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S", "TQ2_0", "TQ1_0",
    "BF16", "F16", "F32",
)  # fmt: skip
"""What is taken where no quantisation is named: the first that is there. What is not in it comes after, by name."""

PROJECTORS = ("F16", "BF16", "Q8_0", "F32")
"""Of several projectors, the first of these that is there."""

_KIND = r"[0-9A-Z]|K[A-Z]{0,2}|X{0,3}[SML]|NL|R[0-9]"
"""What may follow on Q4: of Q4_K_M, IQ3_XXS, IQ4_KSS, Q4_0_R8; no other word, as of 'Q4_K_M_fixed' or 'Q4_K_M_v2'."""
_LABEL = re.compile(
    rf"(?:^|[-._])(?P<label>(?:UD[-_])?(?:I?Q[0-9](?:_(?:{_KIND})(?=$|[-._]))*|TQ[0-9]_[0-9]|B?F16|FP16|F32|FP32|"
    r"MXFP4(?:_MOE)?|NVFP4))(?=$|[-._])",
    re.IGNORECASE,
)
_SAME = {"FP16": "F16", "FP32": "F32"}


@dataclass(frozen=True, slots=True)
class Weights:
    """A model's weights in one quantisation. `files`: all shards, in order. `label`: '' where no name tells one.

    `missing`: names of shards that the repository lacks.
    """

    label: str
    files: tuple[RepoFile, ...]
    missing: tuple[str, ...] = ()

    @property
    def plain(self) -> str:
        """The quantisation without the mark of who made it."""
        return self.label.removeprefix("UD-")

    @property
    def names(self) -> frozenset[str]:
        """What a tag may call them."""
        first = self.files[0].filename.lower()
        shard = ShardName.parse(first)
        stem = first.removesuffix(".gguf") if shard is None else shard.stem
        return frozenset({self.label.lower(), first, stem, f"{stem}.gguf"} - {""})


@dataclass(frozen=True, slots=True)
class Chosen:
    weights: Weights
    projector: RepoFile | None

    @property
    def files(self) -> tuple[RepoFile, ...]:
        return self.weights.files if self.projector is None else (*self.weights.files, self.projector)


def choose(files: Sequence[RepoFile], tag: str, title: str) -> Chosen:
    """The files that `tag` means. `title`: the repository, for errors.

    SourceNotFound: it has no GGUF, or none that the tag could mean: those that are there are named. Unsupported: it
    could mean several, or shards are missing.
    """
    found = all_weights(files)
    if not found:
        kinds = "safetensors, which cannot be pulled" if any(".safetensors" in one.path for one in files) else "others"
        raise SourceNotFound(f"{title} has no GGUF files (it has {kinds})", param="model")
    weights = _meant(found, tag, title)
    return Chosen(weights, _projector(files, weights))


def all_weights(files: Sequence[RepoFile]) -> list[Weights]:
    """All models' weights in the repository, in the order of preference."""
    alone: list[Weights] = []
    shards: dict[tuple[str, ShardName], dict[int, RepoFile]] = {}
    for file in sorted(files, key=lambda one: one.path):
        if not _is_weights(file):
            continue
        shard = ShardName.parse(file.filename)
        if shard is None:
            alone.append(Weights(_label(file.filename.removesuffix(".gguf"), file.directory), (file,)))
        else:
            key = (file.directory, ShardName(shard.stem, 1, shard.count))
            shards.setdefault(key, {})[shard.number] = file
    for (directory, first), held in shards.items():
        label = _label(first.stem, directory)
        missing = tuple(name for number, name in enumerate(first.all, 1) if number not in held)
        alone.append(Weights(label, tuple(held[number] for number in sorted(held)), missing))
    return sorted(alone, key=_rank)


def quantisations(found: Sequence[Weights]) -> list[str]:
    """What can be asked for, in the order of preference."""
    return list(dict.fromkeys(one.label or one.files[0].filename for one in found))


def _meant(found: Sequence[Weights], tag: str, title: str) -> Weights:
    if tag.lower() == DEFAULT_TAG:
        best = [one for one in found if one.label == found[0].label]
    else:
        wanted = _SAME.get(tag.upper(), tag).lower()
        best = [one for one in found if wanted in one.names] or [one for one in found if one.plain.lower() == wanted]
    best = [one for one in best if not one.missing] or best
    if not best:
        there = ", ".join(quantisations(found))
        raise SourceNotFound(
            f"{title} has no quantisation '{tag}'; it has {there}", param="model", code="model_not_found"
        )
    if len(best) > 1:
        several = ", ".join(one.files[0].path for one in best[:8])
        asked = "without a tag it" if tag.lower() == DEFAULT_TAG else f"'{tag}'"
        example = f"name a file as the tag, as in '{title}:{best[0].files[0].filename}'"
        raise Unsupported(f"{title}: {asked} may mean {len(best)} models ({several}); {example}", param="model")
    if lacking := best[0].missing:
        several, shards = ", ".join(lacking[:3]), len(best[0].files) + len(lacking)
        raise Unsupported(f"{title} lacks {several} of {shards} shards", param="model")
    return best[0]


def _projector(files: Sequence[RepoFile], weights: Weights) -> RepoFile | None:
    """One that lies beside the weights before any other, then by PROJECTORS."""

    def rank(file: RepoFile) -> tuple[bool, int, str]:
        label = _label(file.filename.removesuffix(".gguf"), "")
        place = PROJECTORS.index(label) if label in PROJECTORS else len(PROJECTORS)
        return file.directory != weights.files[0].directory, place, file.path

    return min((file for file in files if _is_projector(file)), key=rank, default=None)


def _is_gguf(file: RepoFile) -> bool:
    return file.filename.lower().endswith(".gguf") and file.digest is not None


def _is_projector(file: RepoFile) -> bool:
    return _is_gguf(file) and "mmproj" in file.filename.lower()


def _is_weights(file: RepoFile) -> bool:
    name = file.filename.lower()
    return _is_gguf(file) and "mmproj" not in name and "imatrix" not in name


def _label(stem: str, directory: str) -> str:
    """The last quantisation that a name mentions, else that its directory does."""
    for text in (stem, directory.rpartition("/")[2]):
        found = [match["label"] for match in _LABEL.finditer(text)]
        if found:
            label = found[-1].upper().replace("UD_", "UD-")
            return _SAME.get(label, label)
    return ""


def _rank(weights: Weights) -> tuple[bool, int, bool, str]:
    place = ORDER.index(weights.plain) if weights.plain in ORDER else len(ORDER)
    return bool(weights.missing), place, weights.label != weights.plain, weights.files[0].path
