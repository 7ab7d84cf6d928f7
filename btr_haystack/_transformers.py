# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""
The names of transformers that this package needs; no other file imports transformers.

transformers loads its modules when their names are first asked for, and fails when two threads ask at once ("cannot
import name"). Here one thread asks at a time: first whoever imports this file, then whoever holds the lock. Neither
waits for anything of this package meanwhile, so nobody waits in a circle.
"""

import threading
from typing import Any

import torch  # noqa: F401 - as a whole, before transformers imports parts of it
import transformers
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_outputs import BaseModelOutput, QuestionAnsweringModelOutput
from transformers.utils import CONFIG_NAME, cached_file

__all__ = [
    "CONFIG_NAME",
    "BaseModelOutput",
    "QuestionAnsweringModelOutput",
    "cached_file",
    "create_bidirectional_mask",
]

_ASKING = threading.RLock()


def __getattr__(name: str) -> Any:
    """Any other name of transformers."""
    if name.startswith("__"):
        raise AttributeError(name)
    with _ASKING:
        return getattr(transformers, name)
