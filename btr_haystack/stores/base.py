# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""What every store of passage records can do."""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from types import TracebackType
from typing import Protocol, Self

from btr_haystack.errors import StoreError
from btr_haystack.fingerprint import Fingerprint

KEY_BYTES = 16
_KEYS_A_STEP = 10_000


class Store(Protocol):
    """
    Keeps records (see `btr_haystack.record`) by keys of 16 bytes; one model encoded all of them.

    A record is bytes that come back as they were put. Threads may share a store. Every method raises `StoreError`
    after `close`, for a key that is not 16 bytes, and for whatever the back end cannot do.

    A key says nothing of the model, so two models have the same keys. Where a back end keeps several stores in one
    place, such as a database that teams share, each store lists, counts and deletes the records of its own fingerprint
    and no others. (An SQLite file and a store in memory have one fingerprint each, and refuse another.)
    """

    fingerprint: Fingerprint

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """
        Reads records.

        :param keys: as many as one likes, in any order; a key may come twice.
        :returns: for each key its record, or None where the store has none.
        """

    def put_many(self, items: Iterable[tuple[bytes, bytes]], *, wait: float | None = None) -> None:
        """
        Writes records: all of them or, if anything fails, none. A failing iterable counts as well.

        :param items: keys and records, taken one by one. A record replaces an older one of the same key.
        :param wait: most seconds to wait for another writer, a thread of this process too; None for the back end's own.
        """

    def delete_many(self, keys: Iterable[bytes]) -> int:
        """
        Deletes records: all of them or, if anything fails, none. A failing iterable counts as well.

        :param keys: taken one by one; keys that the store lacks are passed over.
        :returns: how many of them were there.
        """

    def keep_only(self, keys: Iterable[bytes]) -> int:
        """
        Deletes all records but some: all of them or, if anything fails, none. A failing iterable counts as well.

        The store may be read and changed while the keys are taken, and what is put meanwhile stays.

        :param keys: of the records that stay, taken one by one; keys that the store lacks are passed over.
        :returns: how many records were deleted.
        """
        self.delete_many(())  # a store that cannot be written says so before the first key is taken
        with closing(_KeySet()) as unwanted:
            unwanted.add(self.keys())
            unwanted.discard(checked_keys(keys))
            return self.delete_many(unwanted)

    def keys(self) -> Iterator[bytes]:
        """
        Goes over the keys; the store may be read and changed meanwhile.

        :returns: each key once, in no promised order.
        """

    def __len__(self) -> int:
        """Counts the records."""

    def compact(self) -> None:
        """Gives the space of deleted records back."""

    def file_bytes(self) -> int:
        """
        Measures the store.

        :returns: all its bytes on disk, index and logs included; of a store in memory, those of keys and records.
        """

    def close(self) -> None:
        """Frees files and memory; closing twice is fine."""

    def __enter__(self) -> Self:
        """Gives the store itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the store."""
        self.close()


def checked_keys(keys: Iterable[bytes]) -> Iterator[bytes]:
    """
    Lets keys through and stops at the first thing that is none.

    >>> list(checked_keys([b"0123456789abcdef"]))
    [b'0123456789abcdef']

    :param keys: what a caller gave.
    :returns: the same keys, one by one.
    :raises StoreError: at something that is not 16 bytes.
    """
    for key in keys:
        if not isinstance(key, bytes) or len(key) != KEY_BYTES:
            msg = f"{_short(key)} is no key: {KEY_BYTES} bytes are expected, as `passage_key` gives them."
            raise StoreError(msg)
        yield key


def checked_items(items: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    """
    Lets pairs of key and record through and stops at the first thing that is none.

    >>> list(checked_items([(b"0123456789abcdef", b"record")]))
    [(b'0123456789abcdef', b'record')]

    :param items: what a caller gave.
    :returns: the same pairs, one by one.
    :raises StoreError: at something that is not a key of 16 bytes and a record of bytes.
    """
    for item in items:
        match item:
            case (bytes() as key, bytes() as record) if len(key) == KEY_BYTES:
                yield key, record
            case _:
                msg = f"{_short(item)} cannot be stored: a key of {KEY_BYTES} bytes and a record of bytes are expected."
                raise StoreError(msg)


class _KeySet:
    """A set of keys that may be larger than memory: as it grows, SQLite moves it to a temporary file."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("CREATE TABLE keys (key BLOB PRIMARY KEY) WITHOUT ROWID")

    def add(self, keys: Iterable[bytes]) -> None:
        self._change("INSERT OR IGNORE INTO keys VALUES (?)", keys)

    def discard(self, keys: Iterable[bytes]) -> None:
        self._change("DELETE FROM keys WHERE key = ?", keys)

    def __iter__(self) -> Iterator[bytes]:
        return (key for (key,) in self._database.execute("SELECT key FROM keys"))

    def close(self) -> None:
        self._database.close()

    def _change(self, statement: str, keys: Iterable[bytes]) -> None:
        rows = ((key,) for key in keys)
        while step := list(islice(rows, _KEYS_A_STEP)):
            try:
                self._database.executemany(statement, step)
            except sqlite3.Error as error:
                msg = (
                    f"The keys of the store cannot be set aside in the folder for temporary files: {error}. "
                    "Make room there, or set SQLITE_TMPDIR to another folder."
                )
                raise StoreError(msg) from error


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."  # noqa: PLR2004
