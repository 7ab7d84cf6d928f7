# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""The settings of a split reader; they are defined in a file of their own for the sake of `btr_haystack._lazy`."""

from btr_haystack._config import CODES, SCALES, BTRConfig

__all__ = ["CODES", "SCALES", "BTRConfig"]
