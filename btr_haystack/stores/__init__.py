# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Where records are kept: in memory or in an SQLite file."""

from typing import TYPE_CHECKING

from btr_haystack._lazy import lazily

if TYPE_CHECKING:
    from btr_haystack.stores.base import Store
    from btr_haystack.stores.memory import MemoryStore
    from btr_haystack.stores.opening import MEMORY, absolute_url, open_store
    from btr_haystack.stores.sqlite import SQLiteStore

__all__ = ["MEMORY", "MemoryStore", "SQLiteStore", "Store", "absolute_url", "open_store"]

__getattr__ = lazily(
    __name__,
    {
        "MEMORY": "opening",
        "MemoryStore": "memory",
        "SQLiteStore": "sqlite",
        "Store": "base",
        "absolute_url": "opening",
        "open_store": "opening",
    },
)
