"""The tables, as a list of steps from an empty database to today's. A step that was published never changes."""

from __future__ import annotations

from typing import Final

MIGRATIONS: Final[tuple[str, ...]] = (
    """
    CREATE TABLE records (
        position INTEGER PRIMARY KEY AUTOINCREMENT,
        kind TEXT NOT NULL,
        id TEXT NOT NULL,
        owner TEXT NOT NULL,
        parent TEXT NOT NULL,
        previous TEXT NOT NULL,
        created REAL NOT NULL,
        expires REAL,
        content TEXT,
        content_size INTEGER NOT NULL,
        size INTEGER NOT NULL,
        body TEXT NOT NULL,
        UNIQUE (kind, id)
    );
    CREATE INDEX listed ON records (kind, owner, parent, position);
    CREATE INDEX of_model ON records (kind, owner, parent, json_extract(body, '$.model'), position);
    CREATE INDEX parts ON records (parent) WHERE parent <> '';
    CREATE INDEX ending ON records (expires) WHERE expires IS NOT NULL;
    CREATE INDEX holding ON records (content) WHERE content IS NOT NULL;
    CREATE INDEX oldest ON records (owner, position) WHERE kind IN ('response', 'conversation', 'chat');

    CREATE TABLE owners (
        owner TEXT PRIMARY KEY,
        records INTEGER NOT NULL,
        bytes INTEGER NOT NULL
    );
    CREATE TABLE released (content TEXT PRIMARY KEY);
    CREATE TABLE labels (
        key TEXT NOT NULL,
        value TEXT NOT NULL,
        position INTEGER NOT NULL,
        PRIMARY KEY (key, value, position)
    ) WITHOUT ROWID;
    CREATE INDEX labelled ON labels (position);

    CREATE TRIGGER added AFTER INSERT ON records BEGIN
        INSERT OR IGNORE INTO owners VALUES (new.owner, 0, 0);
        UPDATE owners SET records = records + 1, bytes = bytes + new.size WHERE owner = new.owner;
        INSERT OR IGNORE INTO labels
            SELECT key, value, new.position FROM json_each(new.body, '$.metadata') WHERE type = 'text';
    END;
    CREATE TRIGGER relabelled AFTER UPDATE OF body ON records BEGIN
        DELETE FROM labels WHERE position = old.position;
        INSERT OR IGNORE INTO labels
            SELECT key, value, new.position FROM json_each(new.body, '$.metadata') WHERE type = 'text';
    END;
    CREATE TRIGGER changed AFTER UPDATE OF size, content ON records BEGIN
        UPDATE owners SET bytes = bytes + new.size - old.size WHERE owner = new.owner;
        INSERT OR IGNORE INTO released SELECT old.content
            WHERE old.content IS NOT new.content AND old.content IS NOT NULL;
    END;
    CREATE TRIGGER removed AFTER DELETE ON records BEGIN
        UPDATE owners SET records = records - 1, bytes = bytes - old.size WHERE owner = old.owner;
        INSERT OR IGNORE INTO released SELECT old.content WHERE old.content IS NOT NULL;
        DELETE FROM labels WHERE position = old.position;
    END;
    """,
    """
    CREATE INDEX left_work ON records (kind, json_extract(body, '$.work'))
        WHERE json_extract(body, '$.work') IS NOT NULL;
    """,
)
"""What an owner has is counted by the database itself, so that no way of ending leaves a wrong count.

`labels`: what `metadata` says, to be found by. `released`: contents that a record has let go, and that are removed from
the disk when no other holds them.
"""
