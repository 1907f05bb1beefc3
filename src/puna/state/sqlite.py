"""Records in SQLite, in a directory of this machine: one file for them, and their contents beside it.

All statements run in one thread, in the order they were asked for. What one `apply` changes is one transaction of a
write-ahead log: whenever the process ends, all of it is there or none.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar, get_args

from puna.errors import Conflict, NotFound, PunaError, StateError, StateFull
from puna.model.digest import Digest
from puna.state.contents import BlobContents
from puna.state.records import DATED, YIELDING, Change, Delete, Kind, Page, Put, Query, Record
from puna.state.schema import MIGRATIONS
from puna.state.state import StateLimits

if TYPE_CHECKING:
    import sqlite3

    from filelock import BaseFileLock

FILE_NAME = "state.sqlite"

SWEEP_SECONDS = 60.0
"""How often what has ended is removed at most; it is not seen before that either."""

_OWN = ".own"
"""Ends the names of locks of work that one server has, and no other ever."""

LEAST_ROOM = 1 << 20
"""Bytes that a disk has free where something is still to be kept."""

_WAIT_SECONDS = 10.0
"""For another process on the same file."""

_REMEDY = (
    ". Move that file away (with those whose names begin so) and start the server anew: it begins with nothing kept"
)
"""For a file that is damaged."""

_COLUMNS = "kind, id, owner, parent, previous, created, expires, content, content_size, body, position"
_ALIVE = "(expires IS NULL OR expires > :now)"

Result = TypeVar("Result")


class SqliteState:
    """See State. `now`: seconds since 1970. The file is made at the first call, not before."""

    kept = True

    def __init__(
        self, directory: Path, limits: StateLimits | None = None, *, now: Callable[[], float] = time.time
    ) -> None:
        self.contents = BlobContents(directory / "contents")
        self._directory = directory
        self._limits = limits or StateLimits()
        self._now = now
        self._thread = ThreadPoolExecutor(1, "state")
        self._connection: sqlite3.Connection | None = None
        self._swept = 0.0
        self._claims: dict[str, BaseFileLock] = {}

    # ------------------------------------------------------------------------------------------------------- reading

    async def get(self, kind: Kind, id: str, owner: str) -> Record | None:
        def get(database: sqlite3.Connection) -> Record | None:
            return next(iter(_records(self._one(database, kind, id, owner))), None)

        return await self._do(get)

    async def chain(self, kind: Kind, id: str, owner: str) -> tuple[Record, ...]:
        return await self._do(
            lambda database: tuple(
                _records(
                    database.execute(
                        f"""
                        WITH RECURSIVE chain AS (
                            SELECT {_COLUMNS}, 0 AS depth FROM records
                            WHERE kind = :kind AND id = :id AND owner = :owner AND {_ALIVE}
                            UNION ALL
                            SELECT {", ".join(f"older.{name}" for name in _COLUMNS.split(", "))}, depth + 1
                            FROM chain JOIN records AS older ON older.kind = chain.kind AND older.id = chain.previous
                            WHERE chain.previous <> '' AND older.owner = :owner AND older.position < chain.position
                                AND (older.expires IS NULL OR older.expires > :now)
                        )
                        SELECT {_COLUMNS} FROM chain ORDER BY depth DESC
                        """,
                        {"kind": kind, "id": id, "owner": owner, "now": self._now()},
                    )
                )
            )
        )

    async def page(self, kind: Kind, owner: str, query: Query) -> Page:
        return await self._do(lambda database: self._page(database, kind, owner, query))

    def _page(self, database: sqlite3.Connection, kind: Kind, owner: str, query: Query) -> Page:
        values: dict[str, object] = {"kind": kind, "owner": owner, "parent": query.parent, "now": self._now()}
        conditions = ["kind = :kind", "owner = :owner", "parent = :parent", _ALIVE]
        for param, id in (("after", query.after), ("before", query.before)):
            if id is not None:
                values[param] = self._position(database, kind, id, owner, query.parent, param)
                conditions.append(
                    f"records.position {'<' if (param == 'after') == query.newest_first else '>'} :{param}"
                )
        # Begun from the pairs, whose records are in order: few may have them among many that do not.
        sources = [f"labels AS label{index}" for index in range(len(query.where))] + ["records"]
        for index, (key, value) in enumerate(query.where.items()):
            values |= {f"key{index}": key, f"value{index}": value}
            label, same = f"label{index}", f"label{index - 1}" if index else "records"
            conditions.append(f"{label}.key = :key{index} AND {label}.value = :value{index}")
            conditions.append(f"{label}.position = {same}.position")
        conditions += _having(query.having, values)
        # The page before a record is the last one before it: read from it backwards.
        backwards = query.before is not None and query.after is None
        order = "DESC" if query.newest_first != backwards else "ASC"
        columns = ", ".join(f"records.{name}" for name in _COLUMNS.split(", "))
        text = (
            f"SELECT {columns} FROM {' CROSS JOIN '.join(sources)} WHERE {' AND '.join(conditions)}"
            f" ORDER BY records.position {order}"
        )
        if query.limit is not None:
            text += " LIMIT :limit"
            values["limit"] = query.limit + 1
        found = list(_records(database.execute(text, values)))
        wanted = found if query.limit is None else found[: query.limit]
        return Page(tuple(reversed(wanted) if backwards else wanted), len(found) > len(wanted))

    async def everyones(self, kind: Kind, having: Mapping[str, str] | None = None) -> tuple[Record, ...]:
        if self._connection is None and not await asyncio.to_thread((self._directory / FILE_NAME).exists):
            return ()
        values: dict[str, object] = {"kind": kind, "now": self._now()}
        conditions = ["kind = :kind", _ALIVE, *_having(having or {}, values)]
        text = f"SELECT {_COLUMNS} FROM records WHERE {' AND '.join(conditions)} ORDER BY position"
        return await self._do(lambda database: tuple(_records(database.execute(text, values))))

    def _one(self, database: sqlite3.Connection, kind: Kind, id: str, owner: str) -> sqlite3.Cursor:
        return database.execute(
            f"SELECT {_COLUMNS} FROM records WHERE kind = :kind AND id = :id AND owner = :owner AND {_ALIVE}",
            {"kind": kind, "id": id, "owner": owner, "now": self._now()},
        )

    def _position(
        self, database: sqlite3.Connection, kind: Kind, id: str, owner: str, parent: str, param: str
    ) -> object:
        for row in self._one(database, kind, id, owner):
            if row[3] == parent:
                return row[-1]
        raise NotFound(f"'{param}': there is no {kind} with the id '{id[:100]}'.", param=param)

    async def discard(self, digest: Digest) -> None:
        def discard(database: sqlite3.Connection) -> None:
            # Nothing is removed that another server is just about to hold.
            with _transaction(database):
                self.contents.held(digest)
                if not _exists(database, "content = ?", str(digest)):
                    self.contents.remove(digest)

        await self._do(discard)

    async def claim(self, work: str, *, own: bool = False) -> bool:
        return await self._do(lambda _: self._claim(work + _OWN * own))

    def _claim(self, name: str) -> bool:
        """The system lets go of a lock whose process ends."""
        if name not in self._claims:
            lock = self._lock(name)
            if lock is None:
                return False
            self._claims[name] = lock
        return True

    async def claimed(self, work: str) -> bool:
        return await self._do(lambda _: self._is_claimed(work + _OWN))

    def _is_claimed(self, name: str) -> bool:
        path = self._directory / f"{name}.lock"
        if name in self._claims:
            return True
        if not path.exists():
            return False
        lock = self._lock(name)
        if lock is not None:
            lock.release()
            self._remove_lock(name)
        return lock is None

    def _lock(self, name: str) -> BaseFileLock | None:
        from filelock import FileLock, Timeout

        lock = FileLock(self._directory / f"{name}.lock", thread_local=False)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return None
        return lock

    def _remove_lock(self, name: str) -> None:
        """Of work that nobody claims again: two could have a lock whose file was made anew."""
        with suppress(OSError):
            (self._directory / f"{name}.lock").unlink(missing_ok=True)

    # ------------------------------------------------------------------------------------------------------ changing

    async def apply(self, *changes: Change) -> None:
        await self._do(lambda database: self._apply(database, changes))

    def _apply(self, database: sqlite3.Connection, changes: Sequence[Change]) -> None:
        with _transaction(database):
            for change in changes:
                match change:
                    case Put():
                        self._put(database, change)
                    case Delete(kind, id, owner):
                        database.execute(
                            "DELETE FROM records WHERE owner = ? AND (parent = ? OR (kind = ? AND id = ?))",
                            (owner, id, kind, id),
                        )
            self._sweep(database)
            put = [change.record for change in changes if isinstance(change, Put)]
            for owner in {record.owner for record in put}:
                self._make_room(database, owner, {id for record in put for id in (record.id, record.parent)})
        self._remove_released(database)

    def _put(self, database: sqlite3.Connection, put: Put) -> None:
        record = put.record
        if record.parent and not _exists(
            database, f"kind IN {_ANY} AND id = ? AND owner = ?", record.parent, record.owner
        ):
            raise NotFound(f"There is nothing with the id '{record.parent[:100]}' any more.")
        was = (record.kind, record.id, record.owner)
        same = "kind = ? AND id = ? AND owner = ? AND body = ?"
        if put.over is not None and not _exists(database, same, *was, _text(put.over)):
            raise Conflict(f"The {record.kind} with the id '{record.id}' is another by now.")
        if record.content is not None:
            if self.contents.path(record.content) is None:
                raise StateError(f"the content of {record.id} is not there")
            there = "SELECT 1 FROM records WHERE kind = ? AND id = ? AND content = ?"
            if database.execute(there, (record.kind, record.id, str(record.content))).fetchone() is None:
                self.contents.held(record.content)
        body = _text(record)
        expires = record.expires
        if expires is None and record.kind in DATED and self._limits.seconds:
            expires = record.created + self._limits.seconds
        values = {
            "kind": record.kind,
            "id": record.id,
            "owner": record.owner,
            "parent": record.parent,
            "previous": record.previous,
            "created": record.created,
            "expires": expires,
            "content": None if record.content is None else str(record.content),
            "content_size": record.content_size,
            "size": len(body) + record.content_size,
            "body": body,
        }
        changed = ", ".join(f"{name} = excluded.{name}" for name in values if name not in {"kind", "id", "owner"})
        cursor = database.execute(
            f"INSERT INTO records ({', '.join(values)}) VALUES ({', '.join(f':{name}' for name in values)})"
            " ON CONFLICT (kind, id) DO "
            + ("NOTHING" if put.new else f"UPDATE SET {changed} WHERE owner = excluded.owner"),
            values,
        )
        if cursor.rowcount != 1:
            raise Conflict(f"There is a {record.kind} with the id '{record.id}' already.")

    def _make_room(self, database: sqlite3.Connection, owner: str, keep: set[str]) -> None:
        """The oldest that may go do, until the owner has what it may; but none of the ids to `keep`."""
        while self._over(database, owner):
            oldest = database.execute(
                f"SELECT id FROM records WHERE owner = ? AND kind IN {_KINDS} ORDER BY position LIMIT {len(keep) + 1}",
                (owner,),
            ).fetchall()
            victim = next((id for (id,) in oldest if id not in keep), None)
            if victim is None:
                raise self._full()
            database.execute("DELETE FROM records WHERE owner = ? AND (id = ? OR parent = ?)", (owner, victim, victim))

    async def check_room(self, owner: str) -> None:
        await self._do(lambda database: self._check_room(database, owner))

    def _check_room(self, database: sqlite3.Connection, owner: str) -> None:
        if shutil.disk_usage(self._directory).free < LEAST_ROOM:
            raise StateError(
                f"what the server keeps ({self._directory}): less than {LEAST_ROOM >> 20} MiB is left on the disk",
                code="disk_full",
            )
        if self._over(database, owner, more=1) and not _exists(database, f"owner = ? AND kind IN {_KINDS}", owner):
            raise self._full()

    def _full(self) -> StateFull:
        return StateFull(
            f"There is no room: this caller keeps {self._limits.records} records or {self._limits.bytes} "
            "bytes, as many as the server allows. Delete some."
        )

    def _over(self, database: sqlite3.Connection, owner: str, more: int = 0) -> bool:
        """Whether it keeps more than it may, or would with so many records `more`, a byte each."""
        row = database.execute("SELECT records, bytes FROM owners WHERE owner = ?", (owner,)).fetchone()
        if row is None:
            return False
        limits = self._limits
        return bool(
            (limits.records and row[0] + more > limits.records) or (limits.bytes and row[1] + more > limits.bytes)
        )

    def _sweep(self, database: sqlite3.Connection) -> None:
        now = self._now()
        if 0 <= now - self._swept < SWEEP_SECONDS:  # a clock that was set back must not put it off
            return
        self._swept = now
        ended = "SELECT id FROM records WHERE expires <= :now"
        database.execute(f"DELETE FROM records WHERE parent IN ({ended})", {"now": now})
        database.execute("DELETE FROM records WHERE expires <= :now", {"now": now})

    def _remove_released(self, database: sqlite3.Connection) -> None:
        """After the transaction: a file that is gone does not come back when a change is taken back. In one of its own:
        nothing is removed that another server is just about to hold.
        """
        if database.execute("SELECT 1 FROM released LIMIT 1").fetchone() is None:
            return
        with _transaction(database):
            for (text,) in database.execute("SELECT content FROM released").fetchall():
                if not _exists(database, "content = ?", text):
                    with suppress(StateError):  # it is looked for again at the next start
                        self.contents.remove(Digest.parse(text))
                database.execute("DELETE FROM released WHERE content = ?", (text,))

    # ---------------------------------------------------------------------------------------------------- connection

    async def _do(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """`work` in the one thread; it is done to its end even when nobody waits for it any more."""
        context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        return await asyncio.shield(loop.run_in_executor(self._thread, lambda: context.run(self._run, work)))

    def _run(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        import sqlite3

        try:
            return work(self._connection or self._connect())
        except PunaError:
            raise
        except sqlite3.Error as error:
            full = getattr(error, "sqlite_errorname", "") == "SQLITE_FULL" or "full" in str(error)
            remedy = "" if isinstance(error, sqlite3.OperationalError) else _REMEDY
            raise StateError(
                f"what the server keeps ({self._directory / FILE_NAME}): {error}{remedy}",
                code="disk_full" if full else None,
            ) from error
        except OSError as error:
            raise StateError(f"what the server keeps: {error.strerror or error} ({self._directory})") from error

    def _connect(self) -> sqlite3.Connection:
        import sqlite3

        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)  # what callers said is theirs
        connection = sqlite3.connect(
            self._directory / FILE_NAME, timeout=_WAIT_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA recursive_triggers = ON")
            _migrate(connection, self._directory / FILE_NAME)
            with _transaction(connection):
                self._sweep(connection)
            self._remove_released(connection)
            held = frozenset(text for (text,) in connection.execute("SELECT DISTINCT content FROM records"))
            for left in self._directory.glob(f"*{_OWN}.lock"):
                self._is_claimed(left.name.removesuffix(".lock"))  # a server's that was killed
            for digest in self.contents.unclaimed(held):
                self.contents.remove(digest)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    async def __aenter__(self) -> SqliteState:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        def close() -> None:
            for name, lock in self._claims.items():
                lock.release()
                if name.endswith(_OWN):
                    self._remove_lock(name)
            self.contents.close()
            if self._connection is not None:
                self._connection.close()

        await asyncio.get_running_loop().run_in_executor(self._thread, close)
        self._thread.shutdown()


_ANY = "(" + ", ".join(f"'{kind}'" for kind in get_args(Kind)) + ")"
"""All kinds: what has an id is found by both."""

_KINDS = "(" + ", ".join(f"'{kind}'" for kind in YIELDING) + ")"


@contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")


def _migrate(database: sqlite3.Connection, path: Path) -> None:
    """Bring an older file up to date. StateError for one that a newer Puna made."""
    with _transaction(database):
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version > len(MIGRATIONS):
            raise StateError(f"{path} was written by a newer version of Puna")
        if version == len(MIGRATIONS):
            return  # nothing is written: a disk that is full can be read
        for step in MIGRATIONS[version:]:
            for statement in _statements(step):
                database.execute(statement)
        database.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")


def _statements(script: str) -> Iterator[str]:
    """`executescript` would end the transaction."""
    import sqlite3

    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _having(pairs: Mapping[str, str], values: dict[str, object]) -> Iterator[str]:
    """Conditions that a record's body holds these pairs; their `values` are added. Keys are words of our own."""
    for key, value in pairs.items():
        values[f"has_{key}"] = value
        # Written out: an index of the expression (`of_model`) is found by its text.
        yield f"json_extract(body, '$.{key}') = :has_{key}"


def _exists(database: sqlite3.Connection, condition: str, *values: object) -> bool:
    """Whether there is such a record."""
    return database.execute(f"SELECT 1 FROM records WHERE {condition} LIMIT 1", values).fetchone() is not None


def _text(record: Record) -> str:
    """Its body, as it is kept."""
    return json.dumps(record.body, separators=(",", ":"))


def _records(cursor: sqlite3.Cursor) -> Iterator[Record]:
    for kind, id, owner, parent, previous, created, expires, content, content_size, body, _ in cursor:
        yield Record(
            kind=kind,
            id=id,
            owner=owner,
            body=json.loads(body),
            created=created,
            parent=parent,
            previous=previous,
            expires=expires,
            content=None if content is None else Digest.parse(content),
            content_size=content_size,
        )
