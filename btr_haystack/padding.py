# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Rows of unlike length as one tensor."""

from collections.abc import Sequence

import torch
from torch import Tensor

ROUNDING = 1e-4  # 10 x 0.3 tokens are 3, not 4


def padded(rows: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """
    Rows of unlike length as one tensor, padded on the right, with its mask.

    :param rows: token ids of each row.
    :param pad: padding token id.
    :returns: int64 ids and mask, each (rows, longest); the mask is 1 where there is a token.

    >>> padded([[5, 6], [7]], pad=0)[0].tolist()
    [[5, 6], [7, 0]]
    """
    width = max((len(row) for row in rows), default=0)
    ids = torch.full((len(rows), width), pad, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row, dtype=torch.long)
        mask[i, : len(row)] = 1
    return ids, mask


def largest_share(values: Tensor, inside: Tensor, share: float) -> Tensor:
    """
    The share of each row's tokens that have the largest values.

    >>> largest_share(torch.tensor([[0.1, 0.9, 0.5, 0.0]]), torch.tensor([[False, True, True, True]]), 0.34).tolist()
    [[False, True, True, False]]

    :param values: (rows, tokens), 0 or more.
    :param inside: (rows, tokens) bool: tokens that count; a share of a token counts as one.
    :param share: from 0 to 1.
    :returns: (rows, tokens) bool.
    """
    ranked = values.masked_fill(~inside, -1.0).argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    count = (inside.sum(1, keepdim=True) * share - ROUNDING).ceil()
    return (ranked < count) & inside
