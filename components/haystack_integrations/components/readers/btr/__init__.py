# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""Haystack components that read passages from binary token representations."""

from typing import TYPE_CHECKING

from btr_haystack import lazily

if TYPE_CHECKING:
    from haystack_integrations.components.readers.btr.binary_token_store import BinaryTokenStore
    from haystack_integrations.components.readers.btr.btr_generative_reader import BTRGenerativeReader
    from haystack_integrations.components.readers.btr.btr_reader import BTRReader

__all__ = ["BTRGenerativeReader", "BTRReader", "BinaryTokenStore"]

__getattr__ = lazily(
    __name__,
    {
        "BTRGenerativeReader": "btr_generative_reader",
        "BTRReader": "btr_reader",
        "BinaryTokenStore": "binary_token_store",
    },
)
