"""Settings: one frozen value, built once from the environment and the command line.

Each row of `ROWS` documents a variable; `docs/reference/settings.md` is generated from them. A `PUNA_` name wins over
the `OLLAMA_` name it equals. A value that cannot be read stops start-up and names the variable and the value: no
setting falls back to its default in silence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from puna import places, roster
from puna.errors import PunaError

CPU_VARIANTS = ("avx512vnni", "avxvnni", "avx2", "dotprod", "portable")
"""Sets of instructions that the cpu engine's library may be built for, the best first."""

DEFAULT_PORT = 11434


class SettingError(PunaError):
    """A variable holds a value that cannot be read."""

    def __init__(self, key: str, value: str, expected: str) -> None:
        super().__init__(f"{key}={value!r}: expected {expected}")
        self.key = key


@dataclass(frozen=True, slots=True)
class Address:
    """Where the server listens and where the client calls. `host` '' means all interfaces."""

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    scheme: Literal["http", "https"] = "http"
    path: str = ""

    @property
    def url(self) -> str:
        """Base URL for a client; an address that means 'all interfaces' is called on loopback."""
        host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"{self.scheme}://{f'[{host}]' if ':' in host else host}:{self.port}{self.path}"


IDENTITY = "x-puna-version"
"""Header of every answer of a server: by it a client knows that it speaks to Puna, and to which."""

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_UNIT = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


LONGEST = 2**63 / 1e9
"""Seconds in Go's longest duration, 292 years: as good as for ever."""

_WHOLE = re.compile(r"[+-]?[0-9]+")


def parse_duration(text: str) -> float:
    """Go's duration text ('300ms', '1h30m', '-1m', '0') to seconds; negative: for ever.

    ValueError if it is none, or longer than LONGEST.
    """
    sign, body = (-1.0, text[1:]) if text[:1] == "-" else (1.0, text.removeprefix("+"))
    if body == "0":
        return 0.0
    seconds, end = 0.0, 0
    for match in _DURATION.finditer(body):
        if match.start() != end:
            break
        seconds += float(match[1]) * _UNIT[match[2]]
        end = match.end()
    if not body or end != len(body):
        if body and body.replace(".", "", 1).isdigit():
            raise ValueError(f'time: missing unit in duration "{text}"')
        raise ValueError(f'time: invalid duration "{text}"')
    if not seconds < LONGEST:
        raise ValueError(f'time: invalid duration "{text}"')
    return sign * seconds


def _duration(text: str) -> float:
    try:
        return max(min(float(text), LONGEST), -LONGEST) if _WHOLE.fullmatch(text) else parse_duration(text)
    except OverflowError:
        return LONGEST


def _boolean(text: str) -> bool:
    if text in {"1", "t", "T", "TRUE", "true", "True", "yes", "on"}:
        return True
    if text in {"0", "f", "F", "FALSE", "false", "False", "no", "off"}:
        return False
    raise ValueError(text)


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError(text)
    return number


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _seconds(text: str) -> float:
    seconds = _duration(text)
    if seconds <= 0:
        raise ValueError(text)
    return seconds


def parse_address(text: str) -> Address:
    """PUNA_HOST ('host', 'host:port', ':port', '[::1]:port', 'http://host/path') as an Address. ValueError if none."""
    scheme, sep, rest = text.partition("://")
    if not sep:
        scheme, rest, default = "http", text, DEFAULT_PORT
    elif scheme in {"http", "https"}:
        default = 443 if scheme == "https" else 80
    else:
        raise ValueError(text)
    if rest.count(":") > 1 and not rest.startswith("["):
        rest = f"[{rest}]"
    parts = urlsplit(f"//{rest}")
    if parts.query or parts.fragment or parts.username:
        raise ValueError(text)
    port = default if parts.port is None else parts.port
    return Address(
        host=parts.hostname or "",
        port=port,
        scheme="https" if scheme == "https" else "http",
        path=parts.path.rstrip("/"),
    )


def _names(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(",") if item.strip())


_HOST = re.compile(r"[A-Za-z0-9_.*-]+(:[0-9]{1,5})?")


def _hosts(text: str) -> tuple[str, ...]:
    hosts = tuple(host.lower() for host in _names(text))
    if not hosts or not all(_HOST.fullmatch(host) for host in hosts):
        raise ValueError(text)
    return hosts


def _mirrors(text: str) -> tuple[tuple[str, str], ...]:
    """Pairs of a registry's host and the URL of a mirror of it, in the order that they are asked in."""
    found = []
    for item in _names(text):
        host, equals, url = (part.strip() for part in item.partition("="))
        parts = urlsplit(url)
        if not equals or not _HOST.fullmatch(host) or parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(text)
        if parts.query or parts.fragment or parts.username or (parts.port is not None and parts.port == 0):
            raise ValueError(text)
        found.append((host.lower(), url))
    return tuple(found)


def _paths(text: str) -> tuple[Path, ...]:
    import os

    return tuple(_path(item) for item in text.split(os.pathsep) if item)


def _stores(text: str) -> tuple[Path, ...]:
    stores = _paths(text)
    if not stores:
        raise ValueError(text)
    return stores


def _path(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # a '~', and no home
        raise ValueError(text) from error


def _state(text: str) -> Path | Literal["off"]:
    return "off" if text == "off" else _path(text)


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(text)
        return text

    return parse


def _variant(text: str) -> str:
    """A variant's name, or a developer's build of it: `avx2-gcc-sanitized`."""
    return text if text.partition("-")[0] in CPU_VARIANTS else _one_of(*CPU_VARIANTS)(text)


def _default_models() -> Path:
    models = places.models()
    if models is None:
        raise SettingError("PUNA_MODELS", "", "a directory for models, since this user has no home directory")
    return models


@dataclass(frozen=True, slots=True)
class ModelPolicy:
    """How the models are kept whose short names fit a shell pattern. None: as all are.

    `pin`: it leaves for no other model. `priority`: steps by which its requests go before others'. `parallel`: requests
    at once. `max_ctx`: tokens of context at most. `keep_alive`: seconds, negative for ever.
    """

    pattern: str = "*"
    pin: bool = False
    priority: int = 0
    parallel: int | None = None
    max_ctx: int | None = None
    keep_alive: float | None = None

    def fits(self, name: str) -> bool:
        return any(fnmatchcase(said, self.pattern) for said in (name, name.removesuffix(":latest")))


_POLICY: dict[str, Callable[[str], Any]] = {
    "priority": int, "parallel": _positive, "max_ctx": _positive, "keep_alive": _duration,
}  # fmt: skip


def _policies(text: str) -> tuple[ModelPolicy, ...]:
    return tuple(_policy(item.split()) for item in text.split(";") if item.strip())


def _policy(words: list[str]) -> ModelPolicy:
    pattern, *rest = words
    said: dict[str, Any] = {}
    for word in rest:
        name, equals, value = word.partition("=")
        if name in said or name not in {"pin", *_POLICY} or bool(equals) == (name == "pin"):
            raise ValueError(word)
        said[name] = True if name == "pin" else _POLICY[name](value)
    if "=" in pattern or not said:
        raise ValueError(pattern)
    return ModelPolicy(pattern, **said)


@dataclass(frozen=True, slots=True)
class Row:
    """One variable: the field it sets, the names it is read under (first wins), how, and what it means."""

    field: str
    names: tuple[str, ...]
    parse: Callable[[str], Any]
    expected: str
    doc: str


ROWS: tuple[Row, ...] = (
    Row("address", ("PUNA_HOST", "OLLAMA_HOST"), parse_address, "an address such as 127.0.0.1:11434",
        "Where the server listens, and where the command looks for it. Default 127.0.0.1:11434."),
    Row("models", ("PUNA_MODELS", "OLLAMA_MODELS"), _stores, "a directory, or several",
        "The models directory, in Ollama's layout; an Ollama's can be used in place. Of several (separated like PATH) "
        "the first is written, and all are read, in this order."),
    Row("read_only_models", ("PUNA_READ_ONLY_MODELS",), _paths, "directories",
        "More stores that are only read, after those of PUNA_MODELS (separated like PATH)."),
    Row("engine", ("PUNA_ENGINE",), _one_of("auto", *roster.NAMES), f"one of auto, {', '.join(roster.NAMES)}",
        "Which engine runs models. auto (default): cpu where it can run the model, else llama; "
        "the others only when named here."),
    Row("llama_server", ("PUNA_LLAMA_SERVER",), _path, "the path of a llama-server binary",
        "A native llama-server for the engine llama-server (GPU builds, faster CPU builds)."),
    Row("script", ("PUNA_SCRIPT",), _path, "the path of a script (JSON)", "What the scripted engine answers."),
    Row("keep_alive", ("PUNA_KEEP_ALIVE", "OLLAMA_KEEP_ALIVE"), _duration, "a duration such as 5m, or seconds",
        "How long a model stays loaded after its last request. Negative: for ever. Default 5m."),
    Row("context_length", ("PUNA_CONTEXT_LENGTH", "OLLAMA_CONTEXT_LENGTH"), _count, "a number of tokens",
        "Context of a request when neither it nor the model says one. Default 0: 4096, or the model's own if smaller."),
    Row("preload", ("PUNA_PRELOAD",), _names, "names of models, separated by commas",
        "Models that are loaded when the server starts. They stay as long as any other (PUNA_KEEP_ALIVE)."),
    Row("num_parallel", ("PUNA_NUM_PARALLEL", "OLLAMA_NUM_PARALLEL"), _count, "a number of slots",
        "Requests that one model answers at once, each with its full context. Default 0: as the engine advises."),
    Row("max_loaded_models", ("PUNA_MAX_LOADED_MODELS", "OLLAMA_MAX_LOADED_MODELS"), _count, "a number of models",
        "Models kept in memory at once. Default 0: as many as fit."),
    Row("model_policies", ("PUNA_MODEL_POLICY",), _policies,
        "PATTERN WORD …, more after ';': gemma* pin; qwen3:4b priority=1 parallel=2 max_ctx=8192 keep_alive=1h",
        "How single models are kept; the first pattern that fits a name counts. `pin`: once loaded it leaves for no "
        "other model, nor after a while, whatever `keep_alive` a request has (which is told). `priority=N`: its "
        "requests wait as if they had come ten seconds sooner, N times. `parallel`, `keep_alive`: in place of the "
        "settings for all. `max_ctx`: a larger one is cut to it, which the answer tells. Default: none."),
    Row("max_queue", ("PUNA_MAX_QUEUE", "OLLAMA_MAX_QUEUE"), _count, "a number of requests",
        "Requests that may wait for a model, or for their turn at it, before more are refused with 503 and told when "
        "to come back. Default 512."),
    Row("max_model_queue", ("PUNA_MAX_MODEL_QUEUE",), _count, "a number of requests",
        "The same for one model, so that requests to it leave others room to wait. Default 0: PUNA_MAX_QUEUE alone."),
    Row("load_timeout", ("PUNA_LOAD_TIMEOUT", "OLLAMA_LOAD_TIMEOUT"), _duration, "a duration such as 5m",
        "How long a load may take without a sign of life. 0 or negative: for ever. Default 5m."),
    Row("stall_timeout", ("PUNA_STALL_TIMEOUT",), _duration, "a duration such as 2m",
        "How long a runner with work may give no sign of life before it is ended, and its requests with the cause. "
        "0 or negative: for ever. Default 2m."),
    Row("origins", ("PUNA_ORIGINS", "OLLAMA_ORIGINS"), _names, "origins, separated by commas",
        "Browser origins that may call the server, besides those of this machine."),
    Row("api_keys", ("PUNA_API_KEYS",), _names, "keys, separated by commas",
        "If set, requests need one of these as Bearer token. Default: none, any key is accepted."),
    Row("no_prune", ("PUNA_NOPRUNE", "OLLAMA_NOPRUNE"), _boolean, "a boolean", "Never remove unused blobs on its own."),
    Row("flash_attention", ("PUNA_FLASH_ATTENTION", "OLLAMA_FLASH_ATTENTION"), _boolean, "a boolean",
        "Force flash attention on or off. Default: the engine decides."),
    Row("kv_cache_type", ("PUNA_KV_CACHE_TYPE", "OLLAMA_KV_CACHE_TYPE"), _one_of("f16", "q8_0", "q4_0"),
        "f16, q8_0 or q4_0", "Type of the key-value cache, where the engine has a choice."),
    Row("strict", ("PUNA_STRICT",), _boolean, "a boolean",
        "Refuse unknown request fields (unknown_parameter) instead of reporting them. Default off."),
    Row("cache_memory", ("PUNA_CACHE_MEMORY",), _count, "a number of bytes",
        "Memory that the cache of prompts and answers of one model may take; at least one context has to fit. "
        "On llama.cpp it bounds how many slots there are, where PUNA_NUM_PARALLEL does not say that. "
        "Default 0: a whole context for each request at once, or what half of the free memory holds."),
    Row("cache_disk", ("PUNA_CACHE_DISK",), _count, "a number of bytes",
        "Bytes that caches of all models may take on the disk, so that a conversation goes on after a model was "
        "unloaded or the server ended without its prompt being computed again. They hold what users wrote, for this "
        "user alone to read. Never more than half of what the disk has free. 0: nothing is written. "
        "Default 4294967296 (4 GiB)."),
    Row("cache_dir", ("PUNA_CACHE_DIR",), _path, "a directory",
        "Where that is, in a directory `prompts`; it may be deleted at any moment. "
        "Default: this user's directory for caches; without a home, nowhere."),
    Row("memory_limit", ("PUNA_MEMORY_LIMIT",), _count, "a number of bytes",
        "Memory that loaded models may take together. Default 0: what the system has free."),
    Row("max_body", ("PUNA_MAX_BODY",), _count, "a number of bytes",
        "Largest request body, except uploads of blobs and files. Default 67108864 (64 MiB)."),
    Row("max_file", ("PUNA_MAX_FILE",), _positive, "a number of bytes, 1 or more",
        "Largest file of /v1/files and /v1/uploads. Default 536870912 (512 MiB)."),
    Row("max_download", ("PUNA_MAX_DOWNLOAD",), _count, "a number of bytes",
        "Most bytes that one pull may download, from whatever source; told before they come. Default 0: what the disk "
        "has room for."),
    Row("max_connections", ("PUNA_MAX_CONNECTIONS",), _positive, "a number of connections, 1 or more",
        "Connections that may be open at once; one more is answered with 503. Default 1000, but no more than a third "
        "of the files that the server may open."),
    Row("max_bodies", ("PUNA_MAX_BODIES",), _positive, "a number of bytes, 1 or more",
        "Bytes that the bodies of all requests may have together; then 503. Default 268435456 (256 MiB)."),
    Row("read_timeout", ("PUNA_READ_TIMEOUT",), _seconds, "a duration such as 30s, over 0",
        "How long a request's head may take, and its body before it must come with 1 KiB/s at least. Default 30s."),
    Row("write_timeout", ("PUNA_WRITE_TIMEOUT",), _seconds, "a duration such as 2m, over 0",
        "How long a client may take nothing of what is written for it before its connection is ended. Default 2m."),
    Row("fetch_private", ("PUNA_FETCH_PRIVATE",), _boolean, "a boolean",
        "Image URLs of requests may point at private, loopback and link-local addresses. Default off."),
    Row("registries", ("PUNA_REGISTRIES",), _hosts, "hosts, separated by commas: registry.example, localhost:5000, *",
        "Hosts that models may be pulled from and pushed to; also where an address is private. '*' is all others. "
        "Default: every host with a public address."),
    Row("mirrors", ("PUNA_MIRRORS",), _mirrors, "HOST=URL, separated by commas",
        "Where the models of a registry are looked for first: registry.ollama.ai=https://mirror.example/prefix."),
    Row("cpu_variant", ("PUNA_CPU_VARIANT",), _variant, ", ".join(CPU_VARIANTS[:-1]) + " or " + CPU_VARIANTS[-1],
        "Instructions that the cpu engine uses. Default: the best that the processor has. All give the same answers."),
    Row("speculation", ("PUNA_SPECULATION",), _boolean, "a boolean",
        "The cpu engine guesses next tokens from what an answer repeats: a gain in speed, no other text. Default on."),
    Row("spare", ("PUNA_SPARE",), _boolean, "a boolean",
        "Keep one process of the cpu engine ready for the next model, which then answers sooner; it takes 25 MB of "
        "memory, and none where less than 1 GiB is free. Default on."),
    Row("state", ("PUNA_STATE",), _state, "a directory, or off",
        "Where answers, conversations, files and batches are kept for those who made them. Default: this user's "
        "directory for state. off: nothing is kept, and what needs it is refused."),
    Row("state_records", ("PUNA_STATE_RECORDS",), _count, "a number of objects",
        "Objects that one key (without keys: the server) may keep. At the limit the oldest answers, chats and "
        "conversations go; other objects are refused. Default 200000; 0: no limit."),
    Row("state_bytes", ("PUNA_STATE_BYTES",), _count, "a number of bytes",
        "The same in bytes, contents of files included. Default 10737418240 (10 GiB); 0: no limit."),
    Row("state_days", ("PUNA_STATE_DAYS",), _count, "a number of days",
        "How long answers and stored chats are kept. Default 30; 0: until the limits are reached."),
    Row("log_format", ("PUNA_LOG_FORMAT",), _one_of("text", "json"), "text or json",
        "Lines of the server's log: words (default), or a JSON object each."),
    Row("debug", ("PUNA_DEBUG", "OLLAMA_DEBUG"), _boolean, "a boolean", "Log at debug level."),
)  # fmt: skip


_OTHERS = re.compile(r"PUNA_(PARENT|TEST_[A-Z_]+)")
"""What Puna tells its own children, and developers tell their tests."""


def unknown(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Variables that are named like settings and are none, mistyped or of another version: to be told, not obeyed."""
    known = {name for row in ROWS for name in row.names}
    named = (name for name, value in environment.items() if name.startswith("PUNA_") and value)
    return tuple(sorted(name for name in named if name not in known and not _OTHERS.fullmatch(name)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """See ROWS for each field. Durations in seconds; negative means for ever. `cache_dir` None: there is no place."""

    address: Address = Address()
    models: Path
    read_only_models: tuple[Path, ...] = ()
    engine: str = "auto"
    llama_server: Path | None = None
    script: Path | None = None
    keep_alive: float = 300.0
    context_length: int = 0
    preload: tuple[str, ...] = ()
    num_parallel: int = 0
    max_loaded_models: int = 0
    model_policies: tuple[ModelPolicy, ...] = ()
    max_queue: int = 512
    max_model_queue: int = 0
    load_timeout: float = 300.0
    stall_timeout: float = 120.0
    origins: tuple[str, ...] = ()
    api_keys: tuple[str, ...] = ()
    no_prune: bool = False
    flash_attention: bool | None = None
    kv_cache_type: Literal["f16", "q8_0", "q4_0"] | None = None
    strict: bool = False
    cache_memory: int = 0
    cache_disk: int = 4 * 1024**3
    cache_dir: Path | None = None
    memory_limit: int = 0
    max_body: int = 64 * 1024 * 1024
    max_file: int = 512 * 1024 * 1024
    max_download: int = 0
    max_connections: int = 1000
    max_bodies: int = 256 * 1024 * 1024
    read_timeout: float = 30.0
    write_timeout: float = 120.0
    fetch_private: bool = False
    registries: tuple[str, ...] = ()
    mirrors: tuple[tuple[str, str], ...] = ()
    cpu_variant: str | None = None
    speculation: bool = True
    spare: bool = True
    state: Path | Literal["off"] | None = None
    state_records: int = 200_000
    state_bytes: int = 10 * 1024**3
    state_days: int = 30
    log_format: Literal["text", "json"] = "text"
    debug: bool = False

    def policy_of(self, name: str) -> ModelPolicy:
        """How a model of this short Name is kept."""
        return next((policy for policy in self.model_policies if policy.fits(name)), ModelPolicy())

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], **overrides: Any) -> Settings:
        """Read the rows; an override that is not None wins. Raises SettingError; blank values count as absent."""
        values: dict[str, Any] = {}
        for row in ROWS:
            for name in row.names:
                text = environment.get(name, "").strip().strip("\"'")
                if not text:
                    continue
                try:
                    values[row.field] = row.parse(text)
                except ValueError as error:
                    raise SettingError(name, text, row.expected) from error
                break
        if "models" in values:
            values["models"], *others = values["models"]
            values["read_only_models"] = (*others, *values.get("read_only_models", ()))
        values.update({key: value for key, value in overrides.items() if value is not None})
        if "models" not in values:
            values["models"] = _default_models()
        values.setdefault("cache_dir", places.cache())
        return cls(**values)
