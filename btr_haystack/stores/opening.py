# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Which back end a url names."""

from pathlib import Path

from btr_haystack.errors import NoStoreError, StoreError
from btr_haystack.fingerprint import Fingerprint
from btr_haystack.stores.base import Store
from btr_haystack.stores.memory import MemoryStore
from btr_haystack.stores.sqlite import SQLiteStore

MEMORY, SQLITE = "memory://", "sqlite:///"


def absolute_url(url: str) -> str:
    """
    Names the same store from wherever one is.

    >>> absolute_url("memory://"), absolute_url("sqlite:////var/lib/passages.db")
    ('memory://', 'sqlite:////var/lib/passages.db')

    :param url: as `open_store` takes it; another text is left as it is.
    """
    path = url.removeprefix(SQLITE) if isinstance(url, str) and url.startswith(SQLITE) else ""
    return f"{SQLITE}{Path(path).absolute()}" if path else url


def open_store(url: str, fingerprint: Fingerprint | None) -> Store:
    """
    Opens a store, or makes it if there is none.

    >>> model = Fingerprint("0f" * 16, {"model": "tiny", "width": 32})
    >>> with open_store("memory://", model) as store:
    ...     store.put_many([(b"0123456789abcdef", b"record")])
    ...     store.get_many([b"0123456789abcdef", b"fedcba9876543210"])
    [b'record', None]

    :param url: `sqlite:///passages.db` (in the working directory), `sqlite:////var/lib/passages.db` (anywhere) or
        `memory://` (a new store each time). The path is taken as it stands: `%`, `?` and `#` mean themselves.
    :param fingerprint: of the model that will write and read; None opens an existing store with the one it holds.
    :returns: the store, to be closed after use.
    :raises FingerprintError: if the store holds passages of another model.
    :raises NoStoreError: if there is none to open and no fingerprint to make one.
    :raises StoreError: if the url has another form, or the store cannot be opened or made.
    """
    if url == MEMORY:
        if fingerprint is None:
            msg = "A new memory store needs the fingerprint of the model whose passages it will hold, not None."
            raise NoStoreError(msg)
        return MemoryStore(fingerprint)
    path = url.removeprefix(SQLITE) if isinstance(url, str) and url.startswith(SQLITE) else ""
    if path in {"", ":memory:"} or "\0" in path:
        msg = (
            f"{url!r} names no store. Accepted forms: 'sqlite:///passages.db' (in the working directory), "
            "'sqlite:////var/lib/passages.db' (anywhere), 'memory://'."
        )
        raise StoreError(msg)
    return SQLiteStore(Path(path), fingerprint)
