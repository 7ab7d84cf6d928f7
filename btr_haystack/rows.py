# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""Windows of many passages as flat arrays, and the batches in which they are run."""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from btr_haystack.passage import Passage

PADDING = 0.1  # most of a batch that may be padding
CPU_TOKENS = 4096  # that are run at a time in training: more fall out of a CPU's cache, backward passes like them long


@dataclass(frozen=True, slots=True)
class Rows:
    """
    Windows of many passages, w of them, each array int64 (w,).

    :param passage: number of the passage.
    :param first: first token in the document's own numbering.
    :param offset: where the window's tokens begin among those of all windows.
    :param length: tokens, the closing ones included.
    """

    passage: np.ndarray
    first: np.ndarray
    offset: np.ndarray
    length: np.ndarray


@dataclass(frozen=True, slots=True)
class Codes:
    """
    The tokens of many passages, n of them, c of which have a code; see `Passage`.

    :param ids: int32 (n,).
    :param kept: bool (n,) whether the token has a code.
    :param before: int64 (n + 1,) codes that lie before each token.
    :param codes: uint8 (c, bytes of a code).
    :param scales: uint8 (n,), None where scales are predicted.
    """

    ids: np.ndarray
    kept: np.ndarray
    before: np.ndarray
    codes: np.ndarray
    scales: np.ndarray | None


def in_batches(lengths: np.ndarray, budget: int, most: int | None) -> Iterator[np.ndarray]:
    """
    Rows of like length together, longest first: each batch within a token budget, and little of it padding.

    >>> [batch.tolist() for batch in in_batches(np.array([5, 50, 7, 48]), budget=100, most=None)]
    [[1, 3], [2], [0]]

    :param lengths: int64 (rows,) tokens of each row.
    :param budget: most tokens of a batch, padding included; a longer row is a batch of its own.
    :param most: most rows of a batch; None for no limit.
    :returns: numbers of rows, batch by batch.
    """
    order = np.argsort(-lengths, kind="stable")
    tokens = lengths[order]
    first = 0
    while first < len(order):
        fitting = max(1, budget // max(1, int(tokens[first])))
        row = tokens[first : first + (fitting if most is None else min(fitting, most))]
        dense = np.cumsum(row) >= (1 - PADDING) * row[0] * np.arange(1, len(row) + 1)
        size = len(row) if dense.all() else int(dense.argmin())
        yield order[first : first + size]
        first += size


def alike(lengths: np.ndarray, device: torch.device) -> Iterator[np.ndarray]:
    """
    Rows of like length together, as `in_batches`, of the size that suits training on a device.

    :param lengths: int64 (rows,) tokens of each row.
    :param device: on a CPU, a batch has at most `CPU_TOKENS`.
    :returns: numbers of rows, batch by batch.
    """
    return in_batches(lengths, CPU_TOKENS if device.type == "cpu" else sys.maxsize, most=None)


def by_length(lengths: Tensor, run: Callable[[Tensor], Sequence[Tensor]]) -> list[Tensor]:
    """
    Run rows in batches of like length, so that little of the work is padding.

    :param lengths: (rows,) tokens of each row.
    :param run: takes numbers of rows, of which it has to run as many tokens as the longest has; gives tensors
        (those rows, tokens, ...). On a CPU, `CPU_TOKENS` at a time.
    :returns: what `run` gives, all rows in order: (rows, longest, ...), zero behind a batch's longest row.
    """
    numbers = alike(lengths.cpu().numpy(), lengths.device)
    parts = [torch.from_numpy(rows).to(lengths.device) for rows in numbers]
    place = torch.cat(parts).argsort()
    width = int(lengths.max())
    padded = ([F.pad(one, (0, 0) * (one.ndim - 2) + (0, width - one.shape[1])) for one in run(part)] for part in parts)
    return [torch.cat(one)[place] for one in zip(*padded, strict=True)]


def joint_rows(asked: Tensor, states: Tensor, offset: np.ndarray, count: np.ndarray) -> tuple[Tensor, Tensor | None]:
    """
    Rows [question; window; padding] and their mask.

    :param asked: (1, question tokens, d) states of the question, or its token ids with d = 1.
    :param states: (tokens, d) of all windows.
    :param offset: int64 (rows,) where each row's window begins in them.
    :param count: int64 (rows,) its tokens.
    :returns: (rows, longest, d), and the mask (rows, longest), None where no row is padded.
    """
    device = states.device
    length = torch.from_numpy(count).to(device)
    place = torch.arange(int(count.max()), device=device)
    present = place[None] < length[:, None]
    source = (torch.from_numpy(offset).to(device)[:, None] + place).clamp(max=len(states) - 1)
    joint = torch.cat([asked.expand(len(count), -1, -1), states[source]], 1)
    if bool(present.all()):
        return joint, None
    return joint, torch.cat([present.new_ones((len(count), asked.shape[1])), present], 1).long()


def rows_of(passages: Sequence[Passage]) -> Rows:
    """
    All windows of the passages, one behind another.

    :param passages: of `SplitReader.encode`, or unpacked.
    :returns: their windows, in order.
    """
    windows = [passage.windows for passage in passages]
    counts = [len(window) for window in windows]
    whole = concatenate(windows, (0, 2), np.int32).astype(np.int64)
    ends = np.cumsum(whole[:, 1])
    return Rows(np.repeat(np.arange(len(passages)), counts), whole[:, 0], ends - whole[:, 1], whole[:, 1])


def codes_of(passages: Sequence[Passage]) -> Codes:
    """
    All tokens of the passages, one behind another.

    :param passages: of `SplitReader.encode`, or unpacked; of one model, so that their codes are of one width.
    :returns: their tokens and codes, in order.
    """
    kept = concatenate([passage.kept for passage in passages], (0,), np.bool_)
    scales = [passage.scales for passage in passages if passage.scales is not None]
    return Codes(
        ids=concatenate([passage.ids for passage in passages], (0,), np.int32),
        kept=kept,
        before=np.concatenate([[0], np.cumsum(kept)]),
        codes=concatenate([passage.codes for passage in passages], (0, 0)),
        scales=np.concatenate(scales) if scales else None,
    )


def in_groups(lengths: np.ndarray, most: int) -> Iterator[tuple[int, int]]:
    """
    Groups of neighbouring rows that have at most so many tokens, one row at the least.

    >>> list(in_groups(np.array([4, 4, 9, 1]), most=8))
    [(0, 2), (2, 3), (3, 4)]

    :param lengths: int64 (rows,) tokens of each row.
    :param most: tokens of a group.
    :returns: first row of each group, and the one behind its last.
    """
    ends, first = np.cumsum(lengths), 0
    while first < len(lengths):
        room = most + (ends[first - 1] if first else 0)
        last = max(first + 1, int(np.searchsorted(ends, room, side="right")))
        yield first, last
        first = last


def concatenate(arrays: Sequence[np.ndarray], empty: tuple[int, ...], dtype: Any = np.uint8) -> np.ndarray:
    """
    Arrays joined along the first axis, always a fresh writable one.

    :param arrays: of one dtype, alike but for their first axis.
    :param empty: shape of the result where there are none.
    :param dtype: of the result where there are none.
    :returns: the joined array.
    """
    return np.concatenate(arrays) if arrays else np.zeros(empty, dtype)


def added_to_rows(values: np.ndarray | None, rows: Rows) -> np.ndarray:
    """float (passages,) -> float (rows,) of the passage of each row; 0 where there are no values."""
    return np.zeros(len(rows.passage), np.float32) if values is None else values[rows.passage]
