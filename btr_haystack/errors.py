# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""The failures that btr-haystack raises by name; all of them are `BTRError`."""


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


class DataError(BTRError):
    """A file of questions and passages cannot be read."""
