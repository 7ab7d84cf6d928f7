# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""The best answer spans of each window, in memory that grows with the window's length and not with its square."""

import torch
import torch.nn.functional as F
from torch import Tensor


def best_spans(
    start: Tensor, end: Tensor, inside: Tensor, count: int, max_answer_length: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """
    The `count` spans of each row with the highest sum of start and end logit, exactly.

    Only the `count` starts whose own best span is highest can hold one of the best: any other start has that many
    better spans before it. So a row costs count x length sums instead of length x length.

    :param start: (rows, tokens) logits.
    :param end: (rows, tokens) logits.
    :param inside: (rows, tokens) bool: tokens that an answer may hold.
    :param count: spans a row.
    :param max_answer_length: most tokens of a span; None for no limit.
    :returns: scores (rows, c), first and last token (rows, c), best first; c <= count. A row with fewer spans is
        filled up with score -inf.

    >>> start, end = torch.tensor([[0.0, 2.0, 1.0]]), torch.tensor([[3.0, 0.0, 1.0]])
    >>> scores, first, last = best_spans(start, end, torch.ones(1, 3, dtype=torch.bool), count=2)
    >>> scores.tolist(), first.tolist(), last.tolist()
    ([[3.0, 3.0]], [[0, 1]], [[0, 2]])
    """
    rows, length = start.shape
    if count <= 0 or length == 0 or rows == 0:
        empty = start.new_zeros((rows, 0))
        return empty, empty.long(), empty.long()
    low = -torch.inf
    start = start.float().masked_fill(~inside, low)
    end = end.float().masked_fill(~inside, low)
    reach = length if max_answer_length is None else max(1, min(max_answer_length, length))
    if reach == length:
        best_end = end.flip(1).cummax(1).values.flip(1)
    else:
        ahead = F.pad(end, (0, reach - 1), value=low)
        best_end = F.max_pool1d(ahead[:, None], reach, stride=1)[:, 0]
    starts = min(count, length)
    first = (start + best_end).topk(starts, dim=1).indices.sort(1).values
    token = torch.arange(length, device=start.device)
    sums = start.gather(1, first)[..., None] + end[:, None, :]
    allowed = (token >= first[..., None]) & (token < first[..., None] + reach)
    scores, place = sums.masked_fill(~allowed, low).flatten(1).topk(min(count, starts * length), dim=1)
    return scores, first.gather(1, place // length), place % length
