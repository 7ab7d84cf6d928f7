# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""What is looked at before a store file is read: anybody may have made it, and what lies beside it."""

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from btr_haystack.display import shown
from btr_haystack.errors import StoreError
from btr_haystack.fingerprint import Fingerprint

FORMAT_VERSION = 1
APPLICATION_ID = 0x42545253  # "BTRS"
TABLES = {
    "meta": "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "records": "CREATE TABLE records (key BLOB PRIMARY KEY NOT NULL, record BLOB NOT NULL)",
}
DAMAGED = "The file is damaged. Restore a copy of it, or delete it to encode its passages anew."

_META_TABLE, _RECORDS_TABLE = [("table", name, name, sql) for name, sql in TABLES.items()]
_SCHEMA = {_META_TABLE, _RECORDS_TABLE, ("index", "sqlite_autoindex_records_1", "records", None)}
_META = {"format_version", "fingerprint"}
_TEXT_BYTES = 1 << 16  # of a table's definition, and of the fingerprint
_RECORD_BYTES = 1_000_000_000
_LIMITS = {
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 2_000,
    sqlite3.SQLITE_LIMIT_COLUMN: 16,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 20,
    sqlite3.SQLITE_LIMIT_VDBE_OP: 2_000,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH: 1,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}
# A row takes at least 46 bytes, with its entry in the index, and some 20 steps of SQLite where it is counted or summed
# up: a step for each byte of the files is twice what an honest one takes, whatever its size and the machine.
_STEPS = 1_000_000  # for a file of any size
_STRIDE = 10_000  # steps between two looks


def check_files(path: Path) -> None:
    """
    Refuses, before SQLite sees them, files beside a store that no store has.

    SQLite obeys a rollback journal that it finds beside a database: it writes old pages back, and deletes whatever file
    the journal names. A log that is a link would be written to, wherever it leads.

    :param path: the store, its links resolved.
    :raises StoreError: names the file and tells what to do.
    """
    journal = f"{path}-journal"
    if os.path.lexists(journal):
        msg = (
            f"{shown(journal)} lies beside the store: a rollback journal, which SQLite would obey, and which stores do "
            "not have (they keep a write-ahead log). It came from elsewhere, or from another program that used the "
            "file. Delete it, or restore a copy of the store."
        )
        raise StoreError(msg)
    for log in logs(path):
        try:
            found = os.lstat(log)
        except OSError:
            continue
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
            msg = (
                f"{shown(log)} lies beside the store and is a link or no file, but a store's log is a file with one "
                "name. Delete it, or restore a copy of the store together with its log."
            )
            raise StoreError(msg)


def logs(path: Path) -> list[str]:
    """Names the files that SQLite keeps beside an open store."""
    return [f"{path}-wal", f"{path}-shm"]


def size(path: str | Path) -> int:
    """Gives the bytes of a file, 0 if there is none."""
    try:
        return os.path.getsize(path)
    except OSError:
        return 0


def bytes_on_disk(path: Path) -> int:
    """Gives the bytes of a store and its log."""
    return size(path) + size(f"{path}-wal")


def restrict(connection: sqlite3.Connection) -> None:
    """
    Takes from a new connection what no statement of ours needs, before it looks at its file.

    :param connection: which has run no statement.
    """
    for limit, value in _LIMITS.items():
        connection.setlimit(limit, value)
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    connection.execute("PRAGMA mmap_size = 0")


@contextmanager
def bounded(connection: sqlite3.Connection, file_bytes: int = 0) -> Iterator[None]:
    """
    Stops a statement that takes more steps than the file can need, such as one over pages that lead back to themselves.

    Steps are counted, not seconds: a slow disk or a busy machine stops nothing.

    :param connection: runs the statements.
    :param file_bytes: of the files, where a statement goes through all of them.
    """
    looks = count()
    most = (_STEPS + file_bytes) // _STRIDE
    connection.set_progress_handler(lambda: next(looks) > most, _STRIDE)
    try:
        yield
    finally:
        connection.set_progress_handler(None, 0)


def vet(connection: sqlite3.Connection, path: Path) -> Fingerprint:
    """
    Compares a file with what a store is, before anything of it is used.

    :param connection: to the file, restricted.
    :param path: of the file.
    :returns: the fingerprint that the file holds.
    :raises StoreError: if it is no store, one of another version, or one with something else in it.
    """
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _TEXT_BYTES)
    try:
        with bounded(connection):
            connection.execute("BEGIN")
            try:
                _check_schema(connection, path)
                _check_size(connection, path)
                meta = _meta(connection)
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
    except sqlite3.DataError as error:
        msg = (
            f"{path} has a definition of a table or a fingerprint of more than {_TEXT_BYTES} bytes, as no store of "
            f"btr-haystack has. {DAMAGED}"
        )
        raise StoreError(msg) from error
    finally:
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _RECORD_BYTES)
    return _fingerprint(meta, path)


def check_rows(connection: sqlite3.Connection, path: Path) -> None:
    """
    Goes through all rows once, so that what copies them copies no more than there is.

    :param connection: to a file that has been vetted.
    :param path: of the file.
    :raises StoreError: if rows are no records, or sum up to more than the files hold.
    """
    held = bytes_on_disk(path)
    query = """
        SELECT total(length(record)), total(typeof(record) <> 'blob' OR typeof(key) <> 'blob' OR length(key) <> 16)
        FROM records NOT INDEXED
    """
    with bounded(connection, held):
        records, others = connection.execute(query).fetchone()
    if others or records > held:
        msg = f"{path} has rows that are no records, or the same bytes in many of them. {DAMAGED}"
        raise StoreError(msg)


def _check_schema(connection: sqlite3.Connection, path: Path) -> None:
    query = "SELECT type, name, tbl_name, sql, rootpage FROM sqlite_master LIMIT ?"
    rows = connection.execute(query, (len(_SCHEMA) + 1,)).fetchall()
    if not rows:
        msg = (
            f"{path} is a database without tables: making a store was broken off there, or it is something else. "
            "Delete the file, and a store is made in its place; or give another url."
        )
        raise StoreError(msg)
    if _pragma(connection, "application_id") != APPLICATION_ID:
        msg = f"{path} is an SQLite database, but no store of btr-haystack. Give another url."
        raise StoreError(msg)
    definitions = [tuple(definition) for *definition, _ in rows]
    for definition in definitions:
        if definition not in _SCHEMA:
            if _META_TABLE in definitions:  # a newer store may have other tables, and is told by its version
                _check_version(_meta(connection), path)
            kind, name, _, sql = (shown(str(part), 80) for part in definition)
            msg = (
                f"{path} has, in its schema, the {kind} '{name}' ({sql}), which is not one of a store of btr-haystack: "
                "somebody has changed the file or made another one. Restore a copy of it, or delete it to encode its "
                "passages anew."
            )
            raise StoreError(msg)
    roots = {root for *_, root in rows}
    if len(rows) != len(_SCHEMA) or len(roots) != len(rows) or 1 in roots:
        msg = f"{path} lacks a table or has two in one place. {DAMAGED}"
        raise StoreError(msg)


def _check_size(connection: sqlite3.Connection, path: Path) -> None:
    page_bytes = _pragma(connection, "page_size")
    called_for = _pragma(connection, "page_count") * page_bytes
    there = bytes_on_disk(path)
    slack = page_bytes if size(f"{path}-wal") else 0  # SQLite never writes the page at 1 GiB
    if there + slack < called_for:
        msg = (
            f"{path} is cut short: it has {there} bytes, its header calls for {called_for}. "
            "Restore a copy of it, or delete it to encode its passages anew."
        )
        raise StoreError(msg)


def _meta(connection: sqlite3.Connection) -> dict[object, str]:
    query = "SELECT name, value FROM meta WHERE typeof(value) = 'text' LIMIT ?"
    return dict(connection.execute(query, (len(_META) + 1,)))


def _check_version(meta: dict[object, str], path: Path) -> None:
    if (version := meta.get("format_version")) != str(FORMAT_VERSION):
        msg = (
            f"{path} has the store format {shown(str(version), 80)}, this btr-haystack knows {FORMAT_VERSION}. "
            "Update btr-haystack, or give another url."
        )
        raise StoreError(msg)


def _fingerprint(meta: dict[object, str], path: Path) -> Fingerprint:
    _check_version(meta, path)
    try:
        held = Fingerprint.from_json(meta.get("fingerprint", ""))
    except StoreError as error:
        msg = f"{path} does not tell which model encoded its passages: {error} {DAMAGED}"
        raise StoreError(msg) from error
    if meta.keys() != _META:
        others = shown(", ".join(map(repr, meta.keys() - _META)), 80)
        msg = f"{path} tells more of itself than a store does: {others}. {DAMAGED}"
        raise StoreError(msg)
    return held


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value
