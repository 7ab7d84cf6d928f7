# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""A store that lives as long as its process."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from btr_haystack.errors import StoreError
from btr_haystack.fingerprint import Fingerprint
from btr_haystack.stores.base import Store, checked_items, checked_keys


class MemoryStore(Store):
    """
    Keeps records in a dictionary.

    Each change is one operation on the dictionary, so that threads need no lock and a fork cannot inherit a held one.
    """

    def __init__(self, fingerprint: Fingerprint) -> None:
        """
        Makes an empty store.

        :param fingerprint: of the model whose passages it will hold.
        """
        self.fingerprint = fingerprint
        self._held: dict[bytes, bytes] | None = {}

    def __getstate__(self) -> dict[str, Any]:
        """A copy of the records as they are now: another thread may be writing."""
        return {"fingerprint": self.fingerprint, "_held": None if self._held is None else self._held.copy()}

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """See `Store`."""
        records = self._records()
        return [records.get(key) for key in checked_keys(keys)]

    def put_many(self, items: Iterable[tuple[bytes, bytes]], *, wait: float | None = None) -> None:  # noqa: ARG002
        """See `Store`; nobody has to wait."""
        new = dict(checked_items(items))
        self._records().update(new)

    def delete_many(self, keys: Iterable[bytes]) -> int:
        """See `Store`."""
        records = self._records()
        return sum(records.pop(key, None) is not None for key in list(checked_keys(keys)))

    def keys(self) -> Iterator[bytes]:
        """See `Store`."""
        return iter(list(self._records()))

    def __len__(self) -> int:
        """See `Store`."""
        return len(self._records())

    def compact(self) -> None:
        """See `Store`; a dictionary has nothing to give back."""
        self._records()

    def file_bytes(self) -> int:
        """See `Store`."""
        return sum(len(key) + len(record) for key, record in list(self._records().items()))

    def close(self) -> None:
        """See `Store`; the records are gone."""
        self._held = None

    def _records(self) -> dict[bytes, bytes]:
        if self._held is None:
            msg = "The memory store is closed and its records are gone. Open a new one with `open_store`."
            raise StoreError(msg)
        return self._held
