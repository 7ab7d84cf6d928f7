# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""Similar tokens of a row become one (paper, section 3.2; matching after Bolya et al., 2023, "Token Merging")."""

import torch
import torch.nn.functional as F
from torch import Tensor

NOWHERE = -1
MOST_MERGED = 0.5  # what bipartite matching can do at once


def match(states: Tensor, mergeable: Tensor, present: Tensor, count: Tensor) -> Tensor:
    """
    Choose which tokens are merged into which: bipartite soft matching by cosine.

    Every other token may go, into the most similar of those between; the most similar pairs go first. So at most half
    of the tokens can go at once, and the work grows with the square of a row's tokens.

    :param states: (rows, tokens, d).
    :param mergeable: (rows, tokens) bool: tokens that may be merged.
    :param present: (rows, tokens) bool: False for padding.
    :param count: (rows,) how many tokens are to go in each row.
    :returns: (rows, tokens) int64, the map: each token's place in the merged row, -1 for padding.

    >>> states = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.9, 0.1], [1.0, 0.1]]])
    >>> every = torch.ones(1, 4, dtype=torch.bool)
    >>> match(states, every, every, torch.tensor([1])).tolist()
    [[0, 1, 2, 2]]
    """
    merged, into = pairs(states, mergeable, present, count)
    kept = present & ~merged
    place = kept.cumsum(1) - 1
    target = torch.where(kept, place, NOWHERE)
    if into.numel():
        target[:, ::2] = torch.where(merged[:, ::2], place[:, 1::2].gather(1, into), target[:, ::2])
    return target


def pairs(states: Tensor, mergeable: Tensor, present: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """
    The choice that `match` makes.

    :param states: of `match`, as the three that follow.
    :returns: (rows, tokens) bool, which tokens go; and for every other token, from the first, (rows, tokens / 2) int64
        the number of the one between into which it would go.
    """
    unit = F.normalize(states.float(), dim=-1)
    alike = unit[:, ::2] @ unit[:, 1::2].transpose(1, 2)
    mergeable = mergeable & present
    alike = alike.masked_fill(~(mergeable[:, ::2, None] & mergeable[:, None, 1::2]), -torch.inf)
    merged = torch.zeros_like(present)
    if not alike.shape[2]:
        return merged, alike.new_zeros(alike.shape[:2], dtype=torch.long)[:, :0]
    best, into = alike.max(2)
    rank = best.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    merged[:, ::2] = (rank < count[:, None]) & best.isfinite()
    return merged, into


def merge(states: Tensor, sizes: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """
    Means of the tokens that share a place, weighted by their sizes.

    :param states: (rows, tokens, d).
    :param sizes: (rows, tokens) how many tokens each one stands for; 0 for padding.
    :param target: (rows, tokens) of `match`.
    :returns: (rows, merged tokens, d) and their sizes; `target` is the way back.

    >>> merge(torch.tensor([[[1.0], [2.0], [5.0]]]), torch.ones(1, 3), torch.tensor([[0, 1, 1]]))
    (tensor([[[1.0000],
             [3.5000]]]), tensor([[1., 2.]]))
    """
    rows, _, width = states.shape
    length = int(target.max()) + 1
    place = torch.where(target >= 0, target, length)  # padding goes behind the end, which is cut off
    total = sizes.new_zeros(rows, length + 1).scatter_add(1, place, sizes)
    weight = (sizes / total.gather(1, place).clamp_min(1)).to(states.dtype)
    mean = states.new_zeros(rows, length + 1, width).scatter_add(
        1, place[..., None].expand_as(states), states * weight[..., None]
    )
    return mean[:, :length], total[:, :length]


def earliest(places: Tensor, target: Tensor) -> Tensor:
    """
    The earliest place among the tokens that were merged.

    :param places: (rows, tokens) int64.
    :param target: (rows, tokens) of `match`.
    :returns: (rows, merged tokens) int64, 0 for padding.

    >>> earliest(torch.tensor([[4, 6, 9]]), torch.tensor([[0, 1, 1]])).tolist()
    [[4, 6]]
    """
    length = int(target.max()) + 1
    place = torch.where(target >= 0, target, length)
    found = places.new_zeros(len(places), length + 1)
    return found.scatter_reduce(1, place, places, "amin", include_self=False)[:, :length]


def compact(states: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """
    Padding moved to the end of each row and cut off where all rows have it.

    :param states: (rows, tokens, d).
    :param sizes: (rows, tokens), 0 for padding.

    >>> compact(torch.tensor([[[0.0], [7.0], [0.0]]]), torch.tensor([[0.0, 2.0, 0.0]]))
    (tensor([[[7.]]]), tensor([[2.]]))
    """
    order = (sizes == 0).long().argsort(dim=1, stable=True)[:, : int((sizes > 0).sum(1).max())]
    return states.gather(1, order[..., None].expand(-1, -1, states.shape[2])), sizes.gather(1, order)
