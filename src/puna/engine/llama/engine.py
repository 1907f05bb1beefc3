"""Starts runners on llama.cpp: from the wheel, in a child of this interpreter, or as a native `llama-server`."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import os
import platform
import sys
from abc import ABC, abstractmethod
from array import array
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import psutil

from puna.engine.deposit import DEPOSIT, Deposit, DepositError, kind_of
from puna.engine.endings import CANDIDATES, ROLES, ending_tokens
from puna.engine.engine import Engine, ModelFacts, Opinion, Profile, Unprepared, lacking
from puna.engine.llama.blame import not_loaded
from puna.engine.llama.client import LlamaRunner
from puna.engine.llama.http import EngineSocket
from puna.engine.llama.options import (
    WHOLE_IMAGE_BATCH,
    WHOLE_IMAGE_PROJECTORS,
    Parameters,
    batches,
    can_repeat,
    flags,
    parameters,
    wheel,
)
from puna.engine.llama.profile import BINARY, COSTS, WHEEL
from puna.engine.llama.saved import SavedSlots
from puna.engine.memory import Estimate, estimate, over, projector_kinds
from puna.engine.process import ChildProcess, private_directory, python, remove_private
from puna.engine.runner import Feature, LoadOptions, ModelFiles, Runner, RunnerInfo
from puna.errors import LoadFailed, LoadTimeout, ModelFileError, Unsupported
from puna.model.gguf import Header, read_header
from puna.model.markup import Markup
from puna.model.shards import filename, read_whole
from puna.settings import Settings
from puna.types import MEDIA_MARKER

_POLL_FIRST, _POLL_MOST = 0.01, 0.1
_ASK_TIMEOUT = 10.0
_IN_PLACE = 32
"""Bytes by multiples of which tensors must lie for llama.cpp to use a mapped file."""


_LIKELY = frozenset({"qwen3", "qwen3vl"})
"""Families whose heads for ranks have two outputs: the engine gives the probability of the first."""

_MIXED = (
    "llama.cpp loads no file that holds its projector's tensors too (v.*, mm.*), as older conversions of Ollama's do: "
    "get the model where its projector is a file of its own, on hf.co for instance"
)

_KINDS = (
    "llama.cpp has one kind of token, and this reranker, a BERT, was trained with its documents' tokens marked as of a "
    "second kind (token_types.weight has a row for it): its ranks would be wrong. Rerankers without one, as BGE's, run"
)


class _LlamaEngine(Unprepared, ABC):
    """What both have in common. `cpu_only`: it computes on the processor, whatever else the machine has."""

    profile: ClassVar[Profile]
    cpu_only = False

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @classmethod
    def of(cls, settings: Settings) -> Engine:
        """From the roster."""
        return cls(settings)

    @property
    def name(self) -> str:
        return self.profile.name

    @abstractmethod
    def obstacle(self) -> str | None:
        """See `puna.engine.engine.Engine.obstacle`."""

    def opinion(self, model: ModelFacts, load: LoadOptions) -> Opinion:
        """See `puna.engine.engine.Engine.opinion`."""
        on_gpu, one = self.on_gpu(load), self.memory(model, replace(load, slots=1))
        return Opinion(
            engine=self.name,
            objection=self.obstacle()
            or lacking(self.profile, load, projectors=model.projectors, adapters=model.adapters)
            or (_MIXED if model.mixed else None)
            or (_KINDS if model.kinds else None)
            or over(lambda one: self.memory(model, one), load, self._settings.cache_memory),
            need=one.total,
            merit="it computes on the GPU of this machine" if on_gpu else self.profile.merit,
            slots=self._slots(one),
            on_gpu=on_gpu,
        )

    def memory(self, model: ModelFacts, load: LoadOptions) -> Estimate:
        """See `puna.engine.engine.Engine.memory`."""
        _, batch = batches(load, on_cpu=self.cpu_only or load.num_gpu == 0)
        if model.encoders & WHOLE_IMAGE_PROJECTORS:
            batch = max(batch, WHOLE_IMAGE_BATCH)
        return estimate(model.layout, replace(load, num_batch=batch), COSTS)

    def _slots(self, one: Estimate) -> int:
        """How many requests at once, each with a cache as of `one`: as it does well, within what caches may take."""
        most, bound = self.profile.slots, self._settings.cache_memory
        return max(min(most, bound // max(one.cache, 1)), 1) if bound else most

    def on_gpu(self, load: LoadOptions) -> bool:
        """Whether it is known to compute on a GPU when it is so loaded."""
        return False

    @abstractmethod
    def command(self, parameters: Parameters) -> Sequence[str]:
        """What to run."""

    @abstractmethod
    def version(self) -> str:
        """Which llama.cpp it is."""

    async def start(self, files: ModelFiles, load: LoadOptions, *, reason: str = "") -> Runner:
        """See `puna.engine.runner.Engine.start`."""
        objection = lacking(self.profile, load, projectors=len(files.projectors), adapters=len(files.adapters))
        if objection is not None:
            raise Unsupported(objection, param="model")
        header = await asyncio.to_thread(read_whole, files.whole)
        whole_images = await asyncio.to_thread(_whole_images, files.projectors)
        async with AsyncExitStack() as stack:
            directory = private_directory()
            stack.callback(remove_private, directory)
            started = parameters(
                await asyncio.to_thread(_beside, _resolved(files), directory),
                load if _mappable(header) else replace(load, use_mmap=False),
                cores=physical_cores(),
                socket=directory / "runner.sock",
                cpu_only=self.cpu_only,
                exact=_exact(header),
                whole_images=whole_images,
            )
            saved, trouble = await asyncio.to_thread(self._saved, files, load, started)
            if saved is not None:
                started = replace(started, saves=saved[0].directory)
            process = await ChildProcess.start(self.command(started), directory)
            stack.push_async_callback(process.close)
            socket = EngineSocket(started.socket)
            await _ready(process, socket, self._settings.load_timeout)
            facts = await _facts(socket)
            info = replace(
                _info(facts, header, load, ranks=files.ranks),
                engine=self.name,
                version=self.version(),
                bits=f"{self.version()} {load}",
                seed_exact=started.repeats,
                pid=process.pid,
                reason=_reason(reason, load, started, trouble),
            )
            stack.pop_all()
            return LlamaRunner(
                process,
                socket,
                info,
                weights=files.weights,
                plain=facts.plain,
                marker=facts.properties.get("media_marker", MEDIA_MARKER),
                likely=header.architecture in _LIKELY,
                saved=saved,
            )

    def build(self) -> tuple[object, ...]:
        """Which program computes, to the byte as far as can be told without reading it."""
        return (self.name, self.version())

    def _saved(
        self, files: ModelFiles, load: LoadOptions, started: Parameters
    ) -> tuple[tuple[SavedSlots, Mapping[str, array[int]]] | None, str]:
        """Where slots are saved, and what is there; or None, and why, if there was to be something. Blocking."""
        settings = self._settings
        if settings.cache_dir is None or not settings.cache_disk or not files.digest or load.embedding:
            return None, ""
        adapters = tuple(path.name for path in files.adapters)
        how = (started.cache_type, started.flash_attention, started.gpu_layers, started.main_gpu, load.num_ctx)
        kind = kind_of((*self.build(), files.digest, adapters, *how))
        try:
            found = SavedSlots(Deposit(settings.cache_dir.absolute() / DEPOSIT, kind, settings.cache_disk))
        except DepositError as error:
            return None, str(error)
        return (found, found.all()), ""


class LlamaEngine(_LlamaEngine):
    """llama.cpp from the `xllamacpp` wheel."""

    profile = WHEEL

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        # The wheel for macOS computes on the GPU unless told otherwise.
        self.cpu_only = sys.platform != "darwin"

    def obstacle(self) -> str | None:
        return None if find_spec("xllamacpp") is not None else "xllamacpp is not installed"

    def on_gpu(self, load: LoadOptions) -> bool:
        return not self.cpu_only and platform.machine() == "arm64" and load.num_gpu != 0

    def command(self, parameters: Parameters) -> Sequence[str]:
        return python("puna.engine.llama.child", json.dumps(wheel(parameters)))

    def version(self) -> str:
        return importlib.metadata.version("xllamacpp")


class LlamaServerEngine(_LlamaEngine):
    """A native `llama-server` binary, named by a setting."""

    profile = BINARY

    def obstacle(self) -> str | None:
        if self._settings.llama_server is None:
            return "the engine llama-server needs the path of a binary (PUNA_LLAMA_SERVER)"
        return None

    def command(self, parameters: Parameters) -> Sequence[str]:
        binary = self._settings.llama_server
        if binary is None:
            raise LoadFailed(self.obstacle() or "")
        if not os.access(binary, os.X_OK):
            raise LoadFailed(f"PUNA_LLAMA_SERVER: {binary} is not a program that can be run")
        return python("puna.engine.llama.launch", str(binary.resolve()), *flags(parameters))

    def version(self) -> str:
        return self._settings.llama_server.name if self._settings.llama_server else ""

    def build(self) -> tuple[object, ...]:
        binary = self._settings.llama_server
        found = None if binary is None else binary.stat()
        return (self.name, str(binary), found and (found.st_size, found.st_mtime_ns))


def physical_cores() -> int:
    """Cores that this process may use, without hyper-threads."""
    physical = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else physical
    return max(min(physical, allowed), 1)


def _resolved(files: ModelFiles) -> ModelFiles:
    """With absolute paths: the child has another working directory."""
    return replace(
        files,
        weights=files.weights.resolve(),
        projectors=tuple(path.resolve() for path in files.projectors),
        adapters=tuple(path.resolve() for path in files.adapters),
        shards=tuple(path.resolve() for path in files.shards),
    )


def _link(link: Path, path: Path) -> None:
    try:
        link.symlink_to(path)
    except OSError:  # Windows lets only some users make one
        os.link(path, link)


def _beside(files: ModelFiles, directory: Path) -> ModelFiles:
    """Weights in several files under names by which llama.cpp finds them beside the first: links in `directory`."""
    if not files.shards:
        return files
    links = [directory / filename("model", number, len(files.whole)) for number in range(1, len(files.whole) + 1)]
    for link, path in zip(links, files.whole, strict=True):
        _link(link, path)
    return replace(files, weights=links[0], shards=tuple(links[1:]))


async def _ready(process: ChildProcess, socket: EngineSocket, timeout: float) -> None:
    """Wait until the engine has loaded. `timeout`: seconds without a sign of life, 0 or less: for ever."""
    clock = asyncio.get_running_loop().time
    life, since, pause = process.life(), clock(), _POLL_FIRST
    while not await _healthy(socket):
        await asyncio.wait({process.died}, timeout=pause)
        if process.died.done():
            raise not_loaded(process.died.result())
        pause = min(pause * 1.5, _POLL_MOST)
        if (now := process.life()) != life:
            life, since = now, clock()
        elif 0 < timeout < clock() - since:
            last = process.lines[-1] if process.lines else "it said nothing"
            raise LoadTimeout(f"the model did not load: no sign of life for {timeout:g} s; last: {last}")


async def _healthy(socket: EngineSocket) -> bool:
    try:
        status, _ = await asyncio.wait_for(socket.ask("GET", "/health"), _ASK_TIMEOUT)
    except (OSError, asyncio.TimeoutError):
        # Not listening yet; if it never will, its process ends.
        return False
    return status == 200


@dataclass(frozen=True, slots=True)
class _Properties:
    """What the engine tells of the model.

    `plain`: a token that is whole characters. `bos`: what it puts before a text, if anything. `ends`: tokens that may
    end an answer, by their texts.
    """

    properties: Mapping[str, Any]
    vocabulary: int
    embedding: int
    plain: int
    bos: int | None
    closes: tuple[int, ...]
    ends: Mapping[str, int]


async def _facts(socket: EngineSocket) -> _Properties:
    async def ask(path: str, body: Mapping[str, object] | None = None) -> Any:
        asked = socket.ask("GET" if body is None else "POST", path, body)
        status, answer = await asyncio.wait_for(asked, _ASK_TIMEOUT)
        if status != 200:
            told = f"the engine cannot answer {path} with this model: status {status}"
            raise ModelFileError(told, param="model") if path == "/tokenize" else LoadFailed(told)
        return answer

    meta = (await ask("/v1/models"))["data"][0]["meta"]
    plain = (await ask("/tokenize", {"content": "a", "add_special": False}))["tokens"]
    special = (await ask("/tokenize", {"content": "a", "add_special": True}))["tokens"]
    if not plain:
        raise ModelFileError("the model's vocabulary has no token for a letter", param="model")
    begins = len(special) > len(plain) and special[0] != plain[0]
    texts = {"content": "".join(sorted(CANDIDATES)), "add_special": False, "parse_special": True, "with_pieces": True}
    ends = (await ask("/tokenize", texts))["tokens"]
    return _Properties(
        properties=await ask("/props"),
        vocabulary=meta["n_vocab"],
        plain=plain[-1],
        embedding=meta["n_embd"],
        bos=special[0] if begins else None,
        closes=tuple(special[len(plain) + int(begins) :]),
        # A piece that is no whole character comes as a list of its bytes.
        ends={piece: item["id"] for item in ends if isinstance(piece := item["piece"], str) and piece in CANDIDATES},
    )


def _info(facts: _Properties, header: Header, load: LoadOptions, *, ranks: bool) -> RunnerInfo:
    """What does not depend on how it was started."""
    named = {role: (token.id, token.text) for role, token in header.special_tokens.items() if role in ROLES}
    bos = header.special_tokens.get("bos")
    return RunnerInfo(
        engine="",
        version="",
        num_ctx=load.num_ctx,
        slots=load.slots,
        vocabulary=facts.vocabulary,
        bos=facts.bos if facts.bos is not None else (bos.id if bos else None),
        eos=ending_tokens(facts.ends, named),
        add_bos=facts.bos is not None,
        embedding_length=facts.embedding,
        seed_exact=False,
        features=_features(load, facts, ranks=ranks),
        memory=0,
        closes=facts.closes,
        markup=Markup({**{token.text: token.id for token in header.control_tokens}, **facts.ends}),
    )


def _mappable(header: Header) -> bool:
    """Whether its tensors lie where llama.cpp computes with them in place: it ends the process where they do not."""
    return all(tensor.offset % _IN_PLACE == 0 for tensor in header.tensors)


def _exact(header: Header) -> bool:
    types = frozenset(tensor.type.name for tensor in header.tensors if len(tensor.shape) > 1)
    key, value = (header.number(f"{header.architecture}.attention.{name}_length") for name in ("key", "value"))
    return can_repeat(types, key, value)


def _whole_images(projectors: Sequence[Path]) -> bool:
    """Whether an image must be computed in one piece."""
    return any(projector_kinds(read_header(path)) & WHOLE_IMAGE_PROJECTORS for path in projectors)


def _reason(reason: str, load: LoadOptions, started: Parameters, trouble: str) -> str:
    """With what was asked for and could not be had. `trouble`: with what is to be on the disk."""
    notes = [reason] if reason else []
    if not load.embedding and load.num_batch is not None and started.batch > max(load.num_batch, load.slots):
        notes.append(f"num_batch is {started.batch}, for its images are computed in one piece")
    if trouble:
        notes.append(f"its conversations do not outlive it: {trouble}")
    return "; ".join(notes)


def _features(load: LoadOptions, facts: _Properties, *, ranks: bool) -> frozenset[Feature]:
    if load.embedding:
        # What this engine gives as an embedding of a model with a head for ranks is none.
        return frozenset({Feature.RANK if ranks else Feature.EMBED})
    can = {Feature.CONSTRAINT, Feature.LOGPROBS, Feature.LOGIT_BIAS, Feature.MIROSTAT, Feature.SCORE}
    modalities = facts.properties.get("modalities") or {}
    return frozenset(can | ({Feature.MEDIA} if any(modalities.values()) else set()))
