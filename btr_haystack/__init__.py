# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""
Binary token representations: passages encoded once into bits, read many times.

Importing this package registers its models with the Auto classes of transformers.
"""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from btr_haystack._config import BTRConfig
from btr_haystack._lazy import lazily
from btr_haystack._transformers import AutoConfig

if TYPE_CHECKING:
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

__getattr__ = lazily(
    __name__,
    {
        "BTRError": "errors",
        "BTRForConditionalGeneration": "generative",
        "BTRForQuestionAnswering": "model",
        "Compression": "generator",
        "Fingerprint": "fingerprint",
        "GenerativeReader": "generator",
        "Passage": "passage",
        "Spans": "reader",
        "SplitReader": "reader",
        "StoreReport": "report",
        "Tokens": "passage",
        "Written": "generator",
        "default_model_path": "default",
        "default_teacher_path": "default",
        "fit_codes": "fit",
        "open_store": "stores",
        "pack": "record",
        "passage_key": "record",
        "unpack": "record",
    },
)

# the model follows with the first configuration that is made, see BTRConfig
AutoConfig.register("btr", BTRConfig)

try:
    __version__ = version("btr-haystack")
except PackageNotFoundError:  # the source tree, not installed
    __version__ = "0+unknown"
