# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""Tokens that stand in the question and in the passage, marked before the upper layers have to find them."""

import torch
from torch import Tensor, nn

STEP = 10.0  # marks begin at 0 and have a long way to go at the rate of all other weights


class WordMatch(nn.Module):
    """
    Adds a learnt vector, times the state's own size, to each token that has its like on the other side.

    Beyond the paper: the "word in question" feature of shallow readers (Weissenborn et al., 2017; Chen et al., 2017).
    The record has the token ids, so it costs neither bytes nor layers, and a few upper layers can begin where they
    would otherwise have to spend one on finding what matches.

    :param width: d.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.question = nn.Parameter(torch.zeros(width))
        self.passage = nn.Parameter(torch.zeros(width))

    def forward(self, states: Tensor, ids: Tensor, question: Tensor) -> Tensor:
        """
        Rows with their marks.

        :param states: (rows, tokens, d) joint rows [question; passage; padding].
        :param ids: (rows, tokens) their token ids, -1 at padding.
        :param question: (rows or 1,) tokens of each row's question.
        :returns: (rows, tokens, d).
        """
        matched, asking = matches(ids, question)
        own = states[matched]
        size = own.square().mean(-1, keepdim=True).sqrt()
        marks = torch.where(asking.expand_as(matched)[matched][:, None], self.question, self.passage)
        return states.index_put(matched.nonzero(as_tuple=True), STEP * size * marks, accumulate=True)


def matches(ids: Tensor, question: Tensor) -> tuple[Tensor, Tensor]:
    """
    Which tokens of joint rows have their like on the other side.

    :param ids: (rows, tokens) token ids [question; passage; padding], -1 at padding.
    :param question: (rows or 1,) tokens of each row's question.
    :returns: (rows, tokens) bool, and (rows or 1, tokens) bool: the token is the question's.

    >>> matches(torch.tensor([[5, 6, 7, 6, 5]]), torch.tensor([2]))[0].tolist()
    [[True, True, False, True, True]]
    """
    asking = torch.arange(ids.shape[1], device=ids.device)[None] < question[:, None]
    n = int(question.max())
    same = (ids[:, :, None] == ids[:, None, :n]) & asking[:, None, :n] & ~asking[:, :, None]
    matched = same.any(2)
    matched[:, :n] |= same.any(1)
    return matched, asking
