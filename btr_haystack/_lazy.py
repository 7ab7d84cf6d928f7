# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""
Public names of a package that are imported when they are first asked for, so that threads may ask at once.

Python locks a module while it is imported. A thread that imports `package.part` locks the part and then waits for the
package; if the package's own file imports its parts, another thread waits the other way round, and one of the two gets
`_DeadlockError` or a module that is half there. So no `__init__.py` of ours imports a part that has a public name. All
waiting then goes one way: a part waits for the parts below it and for its package, and a package for neither. What
`btr_haystack/__init__.py` itself needs lies in `_config`, `_lazy` and `_transformers`. Nobody outside the package
imports these (a contract in pyproject.toml), so whoever locks one of them does not wait for the package.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazily(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """
    Makes the `__getattr__` of a package.

    >>> lazily("btr_haystack", {"passage_key": "record"})("passage_key").__module__
    'btr_haystack.record'

    :param package: its name.
    :param homes: the module in the package that has each public name.
    :returns: a function that finds a public name, or a module of the package.
    """

    def find(name: str) -> Any:
        home = homes.get(name)
        if home is not None:
            return getattr(import_module(f"{package}.{home}"), name)
        if name.isidentifier() and not name.startswith("_"):
            try:
                return import_module(f"{package}.{name}")
            except ModuleNotFoundError as error:
                if error.name != f"{package}.{name}":
                    raise
        msg = f"module {package!r} has no attribute {name!r}"
        raise AttributeError(msg, name=name)

    return find
