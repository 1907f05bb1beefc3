"""Load options to llama.cpp's parameters, as the wheel names them and as `llama-server`'s flags. Pure.

What is said explicitly although it is the default: all that would change what a request gets (context, cache, fitting).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from puna.engine.runner import LoadOptions, ModelFiles
from puna.types import JsonObject, JsonValue

CPU_BATCH = 64
"""Tokens of prompts computed at once on a CPU, when nothing else is said: who goes away is noticed between batches."""

GPU_BATCH, GPU_PHYSICAL_BATCH = 2048, 512
"""The same where a GPU may compute: llama.cpp's own."""

WAITING = 4
"""Requests that may wait inside the engine, beyond those at work, so that no slot idles between two."""

WHOLE_IMAGE_BATCH = 2048
"""Tokens computed at once where the tokens of an image see each other: all of an image, which llama.cpp would else cut
into batches whose tokens see only their own."""

WHOLE_IMAGE_PROJECTORS = frozenset({"gemma3", "gemma4v", "gemma4uv"})
"""Kinds of projectors (`clip.projector_type`) whose images need that."""

_CONTROL_THREADS = 12
"""HTTP threads beyond those that streams hold: for tokenising, asking for slots, scoring."""

_WARNINGS = 2
"""Of its log only what is wrong: at the next level it writes seven lines a request, each of which wakes the server."""

_POOLING_MEAN, _POOLING_RANK = 1, 4
_FLASH_ATTENTION = {None: -1, False: 0, True: 1}
_CACHE_TYPES = {"f16": 1, "q4_0": 2, "q8_0": 8, "bf16": 30}
_LOAD_MODES = {True: ("mmap", 1), False: ("none", 0)}


NO_PROGRAMS = os.devnull
"""Where the engine finds no ffmpeg: it would give that any bytes of a stranger's that are neither image nor sound."""

TEMPLATE = "chatml"
"""The chat template that this engine is told to use, one of its own: prompts are rendered before they come here, and a
model's template that this engine cannot read, though its prompts can be made, must not keep the model from loading."""

EXACT_TYPES = frozenset({"Q4_0", "Q4_1", "Q8_0"})
"""Types whose matrices this engine multiplies alike in any company on a CPU. See docs/decisions/llama-seeds.md."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """What a llama.cpp server is started with. `context`: of all slots together. `gpu_layers` None: as built.

    `repeats`: a seeded request gives the same bytes in any company. `saves`: where slots may be saved.
    """

    model: Path
    socket: Path
    threads: int
    slots: int
    context: int
    batch: int
    physical_batch: int
    flash_attention: bool | None
    repeats: bool
    cache_type: str
    gpu_layers: int | None
    main_gpu: int | None
    mmap: bool | None
    embedding: bool
    pool: bool
    rank: bool
    projector: Path | None
    adapters: tuple[Path, ...]
    saves: Path | None = None

    @property
    def http_threads(self) -> int:
        return self.slots + WAITING + _CONTROL_THREADS


def can_repeat(matrix_types: frozenset[str], key_length: int | None, value_length: int | None) -> bool:
    """Whether this engine can give a model's answers to the bit alike in any company. Lengths are of a head."""
    return matrix_types <= EXACT_TYPES and key_length == value_length


def parameters(
    files: ModelFiles,
    load: LoadOptions,
    *,
    cores: int,
    socket: Path,
    cpu_only: bool = True,
    exact: bool = False,
    whole_images: bool = False,
    saves: Path | None = None,
) -> Parameters:
    """`cores`: physical ones. `cpu_only`: the build has no other device. `exact`: `can_repeat` holds for the model.
    `whole_images`: it has one of WHOLE_IMAGE_PROJECTORS.

    An embedding input has to fit one physical batch, so there the batch is the context.
    """
    on_cpu = cpu_only or load.num_gpu == 0
    batch, physical = batches(load, on_cpu=on_cpu)
    if whole_images:
        batch, physical = max(batch, WHOLE_IMAGE_BATCH), WHOLE_IMAGE_BATCH
    # With a cache of 16 or 32 bits in IEEE's form, attention over one token and over several round differently; with
    # these types, and flash attention, each token goes the same way whoever else is in its batch.
    repeats = (
        exact
        and on_cpu
        and load.flash_attention is not False
        and load.cache_type in {None, "q8_0"}
        and not load.embedding
    )
    return Parameters(
        model=files.weights,
        socket=socket,
        threads=load.num_thread or cores,
        slots=load.slots,
        context=load.num_ctx * load.slots,
        batch=batch,
        physical_batch=physical,
        flash_attention=True if repeats else load.flash_attention,
        repeats=repeats,
        cache_type=load.cache_type or ("bf16" if repeats else "f16"),
        gpu_layers=load.num_gpu,
        main_gpu=load.main_gpu,
        mmap=load.use_mmap,
        embedding=load.embedding,
        pool=load.embedding and not files.pooled,
        rank=load.embedding and files.ranks,
        projector=files.projectors[0] if files.projectors else None,
        adapters=files.adapters,
        saves=saves,
    )


def batches(load: LoadOptions, *, on_cpu: bool) -> tuple[int, int]:
    """Logical and physical: what is computed between two looks at who is still there, and at once."""
    if load.embedding:
        return load.num_ctx, load.num_ctx
    if on_cpu:
        batch = max(load.num_batch or CPU_BATCH, load.slots)
        return batch, min(batch, GPU_PHYSICAL_BATCH)
    batch = max(load.num_batch or GPU_BATCH, load.slots)
    return batch, min(batch, GPU_PHYSICAL_BATCH)


def wheel(parameters: Parameters) -> JsonObject:
    """For `puna.engine.llama.child`."""
    values: dict[str, JsonValue] = {
        "model.path": str(parameters.model),
        "hostnames": [str(parameters.socket)],
        "port": 0,
        "cpuparams.n_threads": parameters.threads,
        "cpuparams_batch.n_threads": parameters.threads,
        "n_parallel": parameters.slots,
        "n_ctx": parameters.context,
        "kv_unified": False,
        "n_batch": parameters.batch,
        "n_ubatch": parameters.physical_batch,
        "flash_attn_type": _FLASH_ATTENTION[parameters.flash_attention],
        "cache_type_k": _CACHE_TYPES[parameters.cache_type],
        "cache_type_v": _CACHE_TYPES[parameters.cache_type],
        "fit_params": False,
        "ctx_shift": False,
        "cache_ram_mib": 0,
        "cache_idle_slots": False,
        "warmup": True,
        "embedding": parameters.embedding,
        "endpoint_slots": True,
        "ui": False,
        "offline": True,
        "use_jinja": False,
        "chat_template": TEMPLATE,
        "n_threads_http": parameters.http_threads,
        "verbosity": _WARNINGS,
    }
    if parameters.gpu_layers is not None:
        values["n_gpu_layers"] = parameters.gpu_layers
    if parameters.main_gpu is not None:
        values["main_gpu"] = parameters.main_gpu
    if parameters.mmap is not None:
        values["load_mode"] = _LOAD_MODES[parameters.mmap][1]
    if parameters.pool:
        values["pooling_type"] = _POOLING_MEAN
    if parameters.rank:
        values["pooling_type"] = _POOLING_RANK
    if parameters.projector is not None:
        values["mmproj.path"] = str(parameters.projector)
        values["video_ffmpeg_bin_dir"] = NO_PROGRAMS
    if parameters.adapters:
        values["lora_adapters"] = [str(path) for path in parameters.adapters]
    if parameters.saves is not None:
        values["slot_save_path"] = f"{parameters.saves}{os.sep}"
    return values


def flags(parameters: Parameters) -> list[str]:
    """For a `llama-server` binary."""
    flash = {None: "auto", False: "off", True: "on"}[parameters.flash_attention]
    words = [
        *("--model", str(parameters.model)),
        *("--host", str(parameters.socket)),
        *("--threads", str(parameters.threads)),
        *("--threads-batch", str(parameters.threads)),
        *("--parallel", str(parameters.slots)),
        *("--ctx-size", str(parameters.context)),
        "--no-kv-unified",
        *("--batch-size", str(parameters.batch)),
        *("--ubatch-size", str(parameters.physical_batch)),
        *("--flash-attn", flash),
        *("--cache-type-k", parameters.cache_type),
        *("--cache-type-v", parameters.cache_type),
        *("--fit", "off"),
        "--no-context-shift",
        *("--cache-ram", "0"),
        "--no-cache-idle-slots",
        "--slots",
        "--no-ui",
        "--offline",
        "--no-jinja",
        *("--chat-template", TEMPLATE),
        *("--threads-http", str(parameters.http_threads)),
    ]
    if parameters.embedding:
        words.append("--embedding")
    if parameters.gpu_layers is not None:
        words += ["--gpu-layers", str(parameters.gpu_layers)]
    if parameters.main_gpu is not None:
        words += ["--main-gpu", str(parameters.main_gpu)]
    if parameters.mmap is not None:
        words += ["--load-mode", _LOAD_MODES[parameters.mmap][0]]
    if parameters.pool:
        words += ["--pooling", "mean"]
    if parameters.rank:
        words += ["--pooling", "rank"]
    if parameters.projector is not None:
        words += ["--mmproj", str(parameters.projector)]
    if parameters.adapters:
        words += ["--lora", ",".join(str(path) for path in parameters.adapters)]
    if parameters.saves is not None:
        words += ["--slot-save-path", str(parameters.saves)]
    return words
