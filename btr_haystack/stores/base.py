# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""What every store of passage records can do."""

from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Protocol, Self

from btr_haystack.errors import StoreError
from btr_haystack.fingerprint import Fingerprint

KEY_BYTES = 16


class Store(Protocol):
    """
    Keeps records (see `btr_haystack.record`) by keys of 16 bytes; one model encoded all of them.

    A record is bytes that come back as they were put. Threads may share a store. Every method raises `StoreError`
    after `close`, for a key that is not 16 bytes, and for whatever the back end cannot do.
    """

    fingerprint: Fingerprint

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """
        Reads records.

        :param keys: as many as one likes, in any order; a key may come twice.
        :returns: for each key its record, or None where the store has none.
        """

    def put_many(self, items: Iterable[tuple[bytes, bytes]]) -> None:
        """
        Writes records: all of them or, if anything fails, none. A failing iterable counts as well.

        :param items: keys and records, taken one by one. A record replaces an older one of the same key.
        """

    def delete_many(self, keys: Sequence[bytes]) -> int:
        """
        Deletes records: all of them or, if anything fails, none.

        :param keys: keys that the store lacks are passed over.
        :returns: how many of them were there.
        """

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


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."  # noqa: PLR2004
