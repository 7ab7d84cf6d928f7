# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""
Binary token representations: passages encoded once into bits, read many times.

Importing this package registers its models with the Auto classes of transformers.
"""

from importlib.metadata import PackageNotFoundError, version

from btr_haystack.config import BTRConfig
from btr_haystack.default import default_model_path, default_teacher_path
from btr_haystack.errors import BTRError
from btr_haystack.fingerprint import Fingerprint
from btr_haystack.fit import fit_codes
from btr_haystack.generative import BTRForConditionalGeneration
from btr_haystack.generator import Compression, GenerativeReader, Written
from btr_haystack.model import BTRForQuestionAnswering
from btr_haystack.passage import Passage, Tokens
from btr_haystack.reader import Spans, SplitReader
from btr_haystack.record import pack, passage_key, unpack
from btr_haystack.report import StoreReport
from btr_haystack.stores import open_store

__all__ = [
    "BTRConfig",
    "BTRError",
    "BTRForConditionalGeneration",
    "BTRForQuestionAnswering",
    "Compression",
    "Fingerprint",
    "GenerativeReader",
    "Passage",
    "Spans",
    "SplitReader",
    "StoreReport",
    "Tokens",
    "Written",
    "default_model_path",
    "default_teacher_path",
    "fit_codes",
    "open_store",
    "pack",
    "passage_key",
    "unpack",
]

try:
    __version__ = version("btr-haystack")
except PackageNotFoundError:  # the source tree, not installed
    __version__ = "0+unknown"
