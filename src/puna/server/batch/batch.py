"""A batch: its states, and how it is kept. Pure.

validating ─┬→ failed                      the input is not fit
            └→ in_progress ─→ finalizing ─→ completed
cancelling → cancelled, expired            from every state that is not an end
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias, cast

from puna.model.digest import Digest
from puna.server.batch.lines import LineFault
from puna.state.records import Record
from puna.types import JsonObject, JsonValue

BatchStatus: TypeAlias = Literal[
    "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"
]

ENDS: frozenset[BatchStatus] = frozenset({"failed", "completed", "expired", "cancelled"})

WINDOW_SECONDS = 24 * 3600
"""Of a batch, from when it was made to when what was not answered expires."""


@dataclass(frozen=True, slots=True)
class BatchUsage:
    """Tokens of all answers."""

    input: int = 0
    cached: int = 0
    output: int = 0
    reasoning: int = 0

    def __add__(self, other: BatchUsage) -> BatchUsage:
        return BatchUsage(
            self.input + other.input,
            self.cached + other.cached,
            self.output + other.output,
            self.reasoning + other.reasoning,
        )

    @classmethod
    def of(cls, body: JsonValue) -> BatchUsage:
        """What an answer of any dialect says of itself."""
        usage = _object(body, "usage")
        details_in = _object(usage, "input_tokens_details") or _object(usage, "prompt_tokens_details")
        details_out = _object(usage, "output_tokens_details") or _object(usage, "completion_tokens_details")
        return cls(
            _count(usage, "input_tokens") or _count(usage, "prompt_tokens"),
            _count(details_in, "cached_tokens") or _count(usage, "cache_read_input_tokens"),
            _count(usage, "output_tokens") or _count(usage, "completion_tokens"),
            _count(details_out, "reasoning_tokens"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestBatch:
    """`times`: of the states that it came to, by their names. `created`, `expires`, `times`: seconds since 1970.

    `input`: the lines, as bytes that are kept until it ends. `output`, `errors`: ids of files. `seconds`: how long
    these stay; None: until they are deleted. `headers`: of every line's request. `dialect`: whose it is, and alone
    shows it; `details`: what that wants to show of it. `one_model`: all of its lines must ask the same.
    """

    id: str
    owner: str
    dialect: str
    endpoint: str
    input: Digest
    created: float
    expires: float
    status: BatchStatus = "validating"
    times: Mapping[str, float] = field(default_factory=dict)
    total: int = 0
    completed: int = 0
    failed: int = 0
    usage: BatchUsage = field(default_factory=BatchUsage)
    model: str | None = None
    faults: tuple[LineFault, ...] = ()
    output: str | None = None
    errors: str | None = None
    seconds: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    one_model: bool = True
    details: JsonObject = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        return self.status in ENDS

    @property
    def work(self) -> str:
        """The id of the record that the lines are part of that were answered, until the batch ends."""
        return f"{self.id}.work"

    @property
    def mark(self) -> str:
        """The id of the record that says that somebody wants it cancelled."""
        return f"{self.id}.cancel"

    def to(self, status: BatchStatus, now: float) -> RequestBatch:
        """In another state from `now` on."""
        return replace(self, status=status, times={**self.times, status: now})

    def record(self) -> Record:
        usage = self.usage
        body: JsonObject = {
            "dialect": self.dialect,
            "endpoint": self.endpoint,
            "status": self.status,
            "work": "over" if self.ended else "left",
            "input": str(self.input),
            "times": dict[str, JsonValue](self.times),
            "counts": [self.total, self.completed, self.failed],
            "usage": [usage.input, usage.cached, usage.output, usage.reasoning],
            "expires": self.expires,
            "model": self.model,
            "faults": [fault.shown for fault in self.faults],
            "output": self.output,
            "errors": self.errors,
            "seconds": self.seconds,
            "headers": dict[str, JsonValue](self.headers),
            "one_model": self.one_model,
            "details": self.details,
        }
        content = None if self.ended else self.input
        return Record(
            kind="batch", id=self.id, owner=self.owner, body=body, created=self.created, content=content
        )  # fmt: skip

    @classmethod
    def read(cls, record: Record) -> RequestBatch:
        """The batch of a record that `record` made."""
        body = record.body
        counts, usage = cast("list[int]", body["counts"]), cast("list[int]", body["usage"])
        faults = cast("list[dict[str, str]]", body["faults"])
        return cls(
            id=record.id,
            owner=record.owner,
            dialect=cast(str, body["dialect"]),
            endpoint=cast(str, body["endpoint"]),
            input=Digest.parse(cast(str, body["input"])),
            created=record.created,
            expires=cast(float, body["expires"]),
            status=cast(BatchStatus, body["status"]),
            times=cast("dict[str, float]", body["times"]),
            total=counts[0],
            completed=counts[1],
            failed=counts[2],
            usage=BatchUsage(*usage),
            model=cast("str | None", body["model"]),
            faults=tuple(LineFault(**fault) for fault in faults),  # type: ignore[arg-type]
            output=cast("str | None", body["output"]),
            errors=cast("str | None", body["errors"]),
            seconds=cast("float | None", body["seconds"]),
            headers=cast("dict[str, str]", body["headers"]),
            one_model=cast(bool, body["one_model"]),
            details=cast(JsonObject, body["details"]),
        )


def _object(value: JsonValue, name: str) -> JsonObject:
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, dict) else {}


def _count(usage: JsonObject, name: str) -> int:
    found = usage.get(name)
    return found if isinstance(found, int) else 0
