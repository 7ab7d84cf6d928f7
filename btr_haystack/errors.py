# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""The failures that btr-haystack raises by name; all of them are `BTRError`."""

from collections.abc import Iterator
from contextlib import contextmanager


class BTRError(Exception):
    """Base of every error that btr-haystack raises on purpose."""


class RecordError(BTRError):
    """A passage record is damaged, cut short, or written by a newer version."""


class StoreError(BTRError):
    """A store cannot be opened, read or written."""


class FingerprintError(StoreError):
    """A store holds passages that another model encoded."""


class NoStoreError(StoreError):
    """There is no store yet, and nothing was said of the model that would fill it."""


class ModelError(BTRError):
    """A checkpoint cannot become a reader."""


class MissingFileError(ModelError, OSError):
    """A model lacks a file, or has it in a form that is not read; transformers raises an OSError there."""


class LimitError(BTRError, ValueError):
    """More was asked for than a ceiling allows, see `btr_haystack.limits`."""


class DataError(BTRError):
    """A file of questions and passages cannot be read."""


def panicked(error: BaseException) -> bool:
    """Whether Rust code gave up, in tokenizers or safetensors: pyo3's exception is no `Exception`, and has no home."""
    return type(error).__name__ == "PanicException"


@contextmanager
def told_as_damage(what: str, advice: str = "Fetch or save it again.") -> Iterator[None]:
    """
    Whatever fails while something is made of a model's files is told as their damage.

    :param what: cannot be done; begins the message.
    :param advice: ends it.
    :raises ModelError: at any failure but our own, a missing package, and a lack of memory.
    """
    try:
        yield
    except (BTRError, ImportError, MemoryError):
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and not panicked(error):
            raise
        msg = f"{what}: {type(error).__name__}: {str(error).strip():.400}. {advice}"
        raise ModelError(msg) from error
