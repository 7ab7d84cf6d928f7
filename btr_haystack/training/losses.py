# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""What the stages minimise. Rows are pairs [question; passage]; logits are (rows, tokens)."""

import torch
import torch.nn.functional as F
from torch import Tensor

LOW = -1e4


def span_loss(start: Tensor, end: Tensor, allowed: Tensor, targets: Tensor) -> Tensor:
    """
    Cross entropy of start and end in each row; the null place is one of the choices.

    :param start: (rows, tokens) logits.
    :param end: (rows, tokens) logits.
    :param allowed: (rows, tokens) bool: passage tokens and the null place.
    :param targets: (rows, 2) places of the first and last answer token, or of the null place twice.
    """
    both = torch.stack([start, end], 1).float().masked_fill(~allowed[:, None], LOW)
    return F.cross_entropy(both.flatten(0, 1), targets.flatten())


def shared_span_loss(
    start: Tensor, end: Tensor, inside: Tensor, targets: Tensor, group: Tensor, answered: Tensor
) -> Tensor:
    """
    Cross entropy over the passage tokens of all rows of a question, so that scores compare across passages.

    This is the shared normalisation of Clark and Gardner (2018).

    :param start: (rows, tokens) logits.
    :param end: (rows, tokens) logits.
    :param inside: (rows, tokens) bool: passage tokens.
    :param targets: (rows, 2).
    :param group: (rows,) question of each row.
    :param answered: (rows,) bool: the row holds the answer.
    :returns: a number; 0 where no row holds an answer.
    """
    if not answered.any():
        return start.sum() * 0.0
    total = start.new_zeros((), dtype=torch.float32)
    same = group[answered][:, None] == group[None]  # (answered rows, rows)
    for logits, target in ((start, targets[:, 0]), (end, targets[:, 1])):
        logits = logits.float().masked_fill(~inside, LOW)  # noqa: PLW2901
        row_sum = logits.logsumexp(1)
        rivals = row_sum[None].expand(same.shape).masked_fill(~same, LOW).logsumexp(1)
        gold = logits[answered].gather(1, target[answered][:, None])[:, 0]
        total = total + (rivals - gold).mean()
    return total / 2


def imitation_loss(logits: Tensor, teacher: Tensor, allowed: Tensor) -> Tensor:
    """
    Kullback-Leibler divergence from the teacher's distribution over a row's places to the reader's.

    :param logits: (rows, tokens).
    :param teacher: (rows, tokens).
    :param allowed: (rows, tokens) bool.
    """
    ours = logits.float().masked_fill(~allowed, LOW).log_softmax(1)
    theirs = teacher.float().masked_fill(~allowed, LOW).log_softmax(1)
    return F.kl_div(ours, theirs, log_target=True, reduction="batchmean")


def distillation_loss(states: Tensor, teacher: Tensor, chosen: Tensor) -> Tensor:
    """
    Squared error to the teacher's upper states on chosen tokens, relative to their size (paper, section 3.4).

    :param states: (rows, tokens, d).
    :param teacher: (rows, tokens, d).
    :param chosen: (rows, tokens) bool.
    """
    theirs = teacher[chosen].float()
    return (states[chosen].float() - theirs).square().sum() / theirs.square().sum().clamp_min(1e-6)
