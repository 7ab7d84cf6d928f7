# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""A new store file, which is whole as soon as it has its name."""

import errno
import logging
import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from btr_haystack.errors import StoreError
from btr_haystack.fingerprint import Fingerprint
from btr_haystack.stores.vetting import APPLICATION_ID, FORMAT_VERSION, TABLES, logs

logger = logging.getLogger(__name__)

PAGE_BYTES = 512  # see "Overhead" in docs/format.md

_NAME = 40  # characters of the store's name in that of the temporary file, whose length file systems limit
_TRIES, _PAUSE = 400, 0.025  # seconds between tries to be alone in the folder
_NO_LINKS = {errno.EPERM, errno.EACCES, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK}


def make_store(path: Path, fingerprint: Fingerprint) -> None:
    """
    Makes a store that only its owner may read, under another name in its folder, and gives it its name when it is done.

    Where somebody has been quicker, their store stays and this one is dropped.

    :param path: of the store; its folder exists.
    :param fingerprint: of the model whose passages it will hold.
    :raises StoreError: if another process keeps the folder locked.
    :raises OSError: if the folder takes no file of that name.
    :raises sqlite3.Error: if the store cannot be written.
    """
    handle, name = tempfile.mkstemp(suffix=".new", prefix=f".{path.name[:_NAME]}-", dir=path.parent)
    os.close(handle)
    os.chmod(name, 0o600)  # whatever the umask; SQLite gives it to the files beside the store as well
    try:
        _fill(name, fingerprint)
        _publish(name, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(name)


def _fill(name: str, fingerprint: Fingerprint) -> None:
    with closing(sqlite3.connect(name, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        connection.execute("PRAGMA journal_mode = MEMORY")  # no file beside one that is dropped if this is broken off
        connection.execute("BEGIN")
        for table in TABLES.values():
            connection.execute(table)
        meta = {"format_version": str(FORMAT_VERSION), "fingerprint": fingerprint.to_json()}
        connection.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode = WAL")


def _publish(name: str, path: Path) -> None:
    """Gives a file its name, unless there is one of that name."""
    with _alone_in(path.parent):
        if os.path.lexists(path):
            return
        _drop_logs(path)
        try:
            os.link(name, path)
        except FileExistsError:
            return
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            with suppress(FileExistsError):  # what Windows says; elsewhere it would replace, but for `_alone_in`
                os.rename(name, path)
        _sync(path.parent)


def _drop_logs(path: Path) -> None:
    """Deletes the log of a store that was here: SQLite would take it for the new one's."""
    for log in filter(os.path.lexists, logs(path)):
        if os.path.getsize(log):
            logger.warning("%s belonged to a store that was moved or deleted while it was open, and is deleted.", log)
        os.unlink(log)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Lets one process at a time give names in a folder, where the system has such locks: all but Windows."""
    handle, refused = None, False
    try:
        with suppress(ImportError, OSError):
            import fcntl

            handle = os.open(folder, os.O_RDONLY)
            for _ in range(_TRIES):
                with suppress(BlockingIOError):
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                time.sleep(_PAUSE)
            else:
                refused = True
        if refused:
            msg = (
                f"{folder} has been locked for {_TRIES * _PAUSE:.0f} s by another process that makes a store, or holds "
                "it without need. See what it is (`fuser`), or give a url in another folder."
            )
            raise StoreError(msg)
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _sync(folder: Path) -> None:
    """Sees that the name outlives a power cut, where folders can be synced."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
