# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""A store in one SQLite file; docs/format.md gives its tables."""

import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any
from weakref import WeakSet

from btr_haystack.display import shown
from btr_haystack.errors import FingerprintError, NoStoreError, StoreError
from btr_haystack.fingerprint import Fingerprint
from btr_haystack.stores.base import KEY_BYTES, Store, checked_items, checked_keys
from btr_haystack.stores.making import PAGE_BYTES, make_store
from btr_haystack.stores.vetting import (
    DAMAGED,
    bounded,
    bytes_on_disk,
    check_files,
    check_rows,
    restrict,
    size,
    vet,
)

_LOG_BYTES = 4 << 20  # the log goes into the file whenever it has grown to this
_READ_BYTES = 64 << 20  # of a reading that is not compared with what the files hold
_BUSY_SECONDS = 60
_FORK_SECONDS = 1
_KEYS_A_READ = 10_000
# finds a row by the index, then asks the row itself for its key: a damaged index must not give a wrong passage
_GET = """
    SELECT CAST(record AS BLOB) FROM records
    WHERE rowid = (SELECT rowid FROM records WHERE key = ?1) AND +key = ?1
"""
_UNDECODABLE = "Could not decode to UTF-8"
_ADVICE = {
    "SQLITE_BUSY": "Another process has been writing for longer than one waits; try again when it is done.",
    "SQLITE_CANTOPEN": "See that the file and its folder may be read and written.",
    "SQLITE_CORRUPT": DAMAGED,
    "SQLITE_INTERRUPT": f"It takes more steps than a file of its size can need. {DAMAGED}",
    "SQLITE_FULL": "The disk is full. What was committed stays; make room and run again.",
    "SQLITE_IOERR": "The disk fails or is full. What was committed stays; make room and run again.",
    "SQLITE_NOTADB": "It is something else, or its first bytes are damaged. Give another url, or restore a copy.",
    "SQLITE_READONLY": "The store can only be read: to write, both the file and its folder must be writable.",
}


class _Slot:
    """A connection, once there is one, and the lock of whoever uses it."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.connection: sqlite3.Connection | None = None
        self.frozen = False  # the connection takes the file for one that nobody changes
        self.stranded = False  # the connection came over a fork in the middle of a transaction
        self._held = False

    def disconnect(self) -> None:
        if self.connection is not None and not self.stranded:
            self.connection.close()
            self.connection = None

    def before_fork(self) -> None:
        self._held = self.lock.acquire(timeout=_FORK_SECONDS)
        if self._held and self.connection is not None and not self.connection.in_transaction:
            self.disconnect()

    def after_fork_in_parent(self) -> None:
        if self._held:
            self.lock.release()

    def after_fork_in_child(self) -> None:
        self.lock = threading.RLock()
        self.stranded = self.connection is not None


class SQLiteStore(Store):
    """
    Keeps records in one SQLite file: one process at a time writes, any number read, also while one writes.

    Readers see what is committed and nothing else. So does the thread that writes, for reading has a connection of
    its own. What is committed survives the death of the process and a power cut. SQLite's connections must not cross
    a fork: they are closed before it, and parent and child open new ones when they need them.
    """

    def __init__(self, path: Path, fingerprint: Fingerprint | None) -> None:
        """
        Opens a store, or makes it where there is no file.

        :param path: the file; its folder must exist.
        :param fingerprint: of the model that will write and read; None opens an existing store with the one it holds.
        :raises FingerprintError: if the store holds passages of another model.
        :raises StoreError: if the file is no store that this version knows, or cannot be opened or made.
        """
        self._begin(path)
        self._find(fingerprint)

    def __getstate__(self) -> dict[str, Any]:
        """Which file it is: connections and locks are neither copied nor pickled."""
        if not self._closed:
            with self._use(self._reader):  # refuses a file that is gone
                pass
        return {"path": self.path, "fingerprint": self.fingerprint, "closed": self._closed}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Opens the file again, and makes none; what was closed stays so."""
        self._begin(state["path"])
        if state["closed"]:
            self.fingerprint = state["fingerprint"]
            self.close()
            return
        if not size(self.path):
            msg = f"There is no store in {self.path}, where this one was when it was copied or pickled."
            raise NoStoreError(msg)
        self._find(state["fingerprint"])

    def _begin(self, path: Path) -> None:
        self.path = Path(os.path.realpath(path))  # a log lies beside the file, not beside a link that leads to it
        self._reader, self._writer = _Slot(), _Slot()
        self._closed = False
        self._file: tuple[int, int] | None = None  # which file was opened
        _open_stores.add(self)

    def _find(self, fingerprint: Fingerprint | None) -> None:
        try:
            self.fingerprint = self._open(fingerprint)
            self._file = _identity(self.path)
        except UnicodeDecodeError as error:  # SQLite quotes the damage
            self.close()
            msg = f"{self.path}: {DAMAGED}"
            raise StoreError(msg) from error
        except BaseException:
            self.close()
            raise

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """See `Store`."""
        wanted = list(checked_keys(keys))
        found: dict[bytes, bytes | None] = {}
        held = 0
        most = _READ_BYTES
        with self._snapshot() as connection:
            get = connection.execute
            for key in dict.fromkeys(wanted):
                for (record,) in get(_GET, (key,)):
                    found[key] = record
                    held += len(record or b"")
                if held > most:
                    most = self._room(held)
        return [found.get(key) for key in wanted]

    def _room(self, held: int) -> int:
        """Gives the bytes of the files: so many have the records of different keys together, and no more."""
        most = max(_READ_BYTES, bytes_on_disk(self.path))
        if held > most:
            msg = f"{self.path} gives {held} bytes of records or more, but has {most} itself. {DAMAGED}"
            raise StoreError(msg)
        return most

    def put_many(self, items: Iterable[tuple[bytes, bytes]], *, wait: float | None = None) -> None:
        """
        See `Store`. Memory stays flat however many items come.

        Other writers wait until the last item is written, and give up after a minute: encode first, then put.
        """
        with self._transaction(wait) as connection:
            connection.executemany("REPLACE INTO records (key, record) VALUES (?, ?)", checked_items(items))

    def delete_many(self, keys: Iterable[bytes]) -> int:
        """See `Store`. Other writers wait until the last key is taken, and give up after a minute."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM records WHERE 0")  # fails in a file that can only be read
            unwanted = ((key,) for key in checked_keys(keys))
            return connection.executemany("DELETE FROM records WHERE key = ?", unwanted).rowcount

    def keys(self) -> Iterator[bytes]:
        """See `Store`."""
        last = b""
        while True:
            with self._snapshot() as connection, bounded(connection):
                query = "SELECT key FROM records WHERE key > ? ORDER BY key LIMIT ?"
                page = [key for (key,) in connection.execute(query, (last, _KEYS_A_READ))]
            if not page:
                return
            # a damaged index could give the same keys again and again
            if any(before >= key or len(key) != KEY_BYTES for before, key in pairwise([last, *page])):
                msg = f"{self.path} has keys that are none, or not in their order. {DAMAGED}"
                raise StoreError(msg)
            yield from page
            last = page[-1]

    def __len__(self) -> int:
        """See `Store`."""
        with self._snapshot() as connection, bounded(connection, bytes_on_disk(self.path)):
            # of keys, one by one: SQLite counts rows as such in one step, which nothing stops
            count: int = connection.execute("SELECT count(key) FROM records").fetchone()[0]
            return count

    def compact(self) -> None:
        """
        See `Store`. SQLite writes the file anew, which for a while takes as much room again.

        Nothing of a deleted record is left then, in the file or, unless somebody is reading, in its log.
        """
        with self._use(self._writer) as connection:
            check_rows(connection, self.path)
            connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 1)  # the copy
            try:
                connection.execute("VACUUM")
            finally:
                connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def file_bytes(self) -> int:
        """See `Store`. The log goes into the file first, unless somebody is using it; then its records count twice."""
        with self._use(self._reader) as connection, suppress(sqlite3.OperationalError):
            connection.execute("PRAGMA busy_timeout = 0")
            try:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            finally:
                connection.execute(f"PRAGMA busy_timeout = {_BUSY_SECONDS * 1000}")
        return bytes_on_disk(self.path)  # -shm is memory, and gone once closed

    def close(self) -> None:
        """See `Store`."""
        for slot in (self._writer, self._reader):
            with slot.lock:
                if slot.connection is not None and not slot.stranded and slot.connection.in_transaction:
                    msg = f"{self.path} is being written by what closes it; close it when the last record is put."
                    raise StoreError(msg)
                self._closed = True
                slot.disconnect()
        _open_stores.discard(self)

    def _open(self, fingerprint: Fingerprint | None) -> Fingerprint:
        """Finds the store or makes it, and gives the fingerprint that it holds."""
        if not os.path.isdir(self.path.parent):
            msg = f"{self.path} cannot be opened: there is no folder {self.path.parent}. Make it, or give another url."
            raise StoreError(msg)
        if os.path.lexists(self.path) and not os.path.isfile(self.path):  # a link that leads to itself, too
            msg = f"{self.path} is no file. Give the url of a file."
            raise StoreError(msg)
        if not os.path.exists(self.path):
            if fingerprint is None:
                msg = f"There is no store in {self.path}, and making one takes the fingerprint of the model, not None."
                raise NoStoreError(msg)
            self._make(fingerprint)
            return self._open(fingerprint)
        if not size(self.path):
            msg = f"{self.path} is an empty file, and no store. Delete it, and a store is made in its place."
            raise StoreError(msg)
        with self._use(self._reader):
            held = self._held
        if fingerprint is not None and fingerprint != held:
            msg = (
                f"{self.path} holds passages encoded by {held}; they are of no use to {fingerprint}. "
                "Give another url, or delete the file to encode its passages anew."
            )
            raise FingerprintError(msg)
        return held

    def _make(self, fingerprint: Fingerprint) -> None:
        """Makes the store, unless another process has been quicker."""
        check_files(self.path)
        try:
            make_store(self.path, fingerprint)
        except (OSError, sqlite3.Error) as error:
            reason = getattr(error, "strerror", None) or error
            cause = getattr(error, "sqlite_errorname", "SQLITE_CANTOPEN")
            msg = f"{self.path}: unable to open database file ({reason}). {_advice(cause)}".rstrip()
            raise StoreError(msg) from error

    @contextmanager
    def _snapshot(self) -> Iterator[sqlite3.Connection]:
        """Gives a connection that sees one committed state of the store."""
        with self._use(self._reader) as connection:
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    @contextmanager
    def _transaction(self, wait: float | None = None) -> Iterator[sqlite3.Connection]:
        """Gives a connection whose changes are committed at the end, or undone by any exception."""
        with self._in_turn(self._writer, wait), self._use(self._writer) as connection:
            if wait is None:
                connection.execute("BEGIN IMMEDIATE")
            else:
                connection.execute(f"PRAGMA busy_timeout = {round(wait * 1000)}")
                try:
                    connection.execute("BEGIN IMMEDIATE")
                finally:
                    connection.execute(f"PRAGMA busy_timeout = {_BUSY_SECONDS * 1000}")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _in_turn(self, slot: _Slot, wait: float | None) -> Iterator[None]:
        """Holds the lock of a slot; gives up where another thread holds it for so many seconds."""
        lock = slot.lock
        if not lock.acquire(timeout=-1 if wait is None else wait):
            msg = f"{self.path}: another thread has been writing for more than {wait} s; try again when it is done."
            raise StoreError(msg)
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def _use(self, slot: _Slot) -> Iterator[sqlite3.Connection]:
        """Gives the connection of a slot to one thread at a time, and says in our words what SQLite complains about."""
        with slot.lock:
            self._check_open()
            if slot.stranded:
                msg = (
                    f"{self.path} was being written when this process was forked, and cannot be used in it. "
                    "Fork at another time, or start the process with the method 'spawn'."
                )
                raise StoreError(msg)
            if self._file not in (None, _identity(self.path)):  # what is written to a file without a name is lost
                msg = (
                    f"{self.path} was deleted or replaced while it was open. Close the store and open it again; "
                    "a component that is closed does so when it is used."
                )
                raise StoreError(msg)
            try:
                yield slot.connection or self._connect(slot)
            except sqlite3.Error as error:
                cause = getattr(error, "sqlite_errorname", "")
                if str(error).startswith(_UNDECODABLE):  # SQLite quotes the damage
                    msg = f"{self.path}: {DAMAGED}"
                    raise StoreError(msg) from error
                msg = f"{self.path}: {shown(str(error))}. {_advice(cause)}".rstrip()
                raise StoreError(msg) from error
            finally:
                if slot.frozen:
                    slot.disconnect()

    def _connect(self, slot: _Slot) -> sqlite3.Connection:
        """
        Opens the connection of a slot.

        Reading takes a log beside the file. Where there is none and the folder is read-only, nobody can be writing:
        then SQLite may read the file as it is. Such a connection is used once, lest it miss that this changes.
        """
        try:
            slot.connection, slot.frozen = self._dial("mode=rw"), False
        except sqlite3.OperationalError as error:
            cause = getattr(error, "sqlite_errorname", "")
            unwritable = cause.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY"))
            if not unwritable or size(f"{self.path}-wal"):
                raise
            slot.connection, slot.frozen = self._dial("mode=ro&immutable=1"), True
        if slot is self._writer:
            _keep_log(slot.connection)  # a copy that was made by SQLite's own means has none
        return slot.connection

    def _dial(self, options: str) -> sqlite3.Connection:
        """Connects to the file, whoever made it, and vets it before anything else is done with it."""
        check_files(self.path)
        connection = sqlite3.connect(
            f"{self.path.as_uri()}?{options}",
            uri=True,
            timeout=_BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            restrict(connection)
            self._held = vet(connection, self.path)  # the first look at the file: fails here or not at all
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA secure_delete = ON")
            connection.execute(f"PRAGMA wal_autocheckpoint = {_LOG_BYTES // PAGE_BYTES}")
            connection.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _check_open(self) -> None:
        if self._closed:
            msg = f"{self.path} is closed. Open the store again with `open_store`."
            raise StoreError(msg)


def _keep_log(connection: sqlite3.Connection) -> None:
    """Turns on the write-ahead log. SQLite does not wait when two processes do so at once, so this does."""
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname != "SQLITE_BUSY" or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _advice(cause: str) -> str:
    return next((text for start, text in _ADVICE.items() if cause.startswith(start)), "")


def _identity(path: Path) -> tuple[int, int] | None:
    """Tells a file from another one of its name; None if there is none."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


_open_stores: WeakSet[SQLiteStore] = WeakSet()
_fork_lock = threading.Lock()
_slots_in_fork: list[_Slot] = []


def _before_fork() -> None:
    _fork_lock.acquire()
    _slots_in_fork.extend(slot for store in _open_stores for slot in (store._writer, store._reader))
    for slot in _slots_in_fork:
        slot.before_fork()


def _after_fork_in_parent() -> None:
    for slot in _slots_in_fork:
        slot.after_fork_in_parent()
    _slots_in_fork.clear()
    _fork_lock.release()


def _after_fork_in_child() -> None:
    for slot in _slots_in_fork:
        slot.after_fork_in_child()
    _slots_in_fork.clear()
    _fork_lock.release()


if hasattr(os, "register_at_fork"):  # Windows knows no fork
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
