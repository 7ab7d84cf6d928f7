# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""What is kept of one document."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """
    What a document's text alone gives, with a tokenizer and a window setting; see `Passage`.

    :param ids: int32 `(n,)`.
    :param windows: int32 `(w, 2)`.
    """

    ids: np.ndarray
    windows: np.ndarray


@dataclass(frozen=True, slots=True)
class Layout:
    """
    What a model and its settings give all passages alike; see `Passage`.

    :param width: bytes of a code.
    :param scales: whether there are scales.
    :param coded_share: share of a window's tokens that have a code, at most; a share of a token counts as one.
    :param merged_share: share of a window's tokens that are merged into others, at most.
    """

    width: int
    scales: bool
    coded_share: float
    merged_share: float


@dataclass(frozen=True, slots=True, eq=False)
class Passage:
    """
    One encoded document: its token ids, its windows and the bits of its tokens.

    `n` is the number of tokens of all windows together, `w` the number of windows, `m` the bits a token has.
    An empty document has `n = 0` and `w = 0`. Nothing is checked here: `btr_haystack.record.pack` checks what is
    stored and `unpack` what is read. Arrays that `unpack` gives are read-only views into the record.

    :param ids: int32 `(n,)`; token ids of all windows, one window after another, each ending with the tokenizer's
        closing special tokens.
    :param windows: int32 `(w, 2)`; of each window its first token in the document's own token numbering, and its
        number of ids, closing special tokens included. The second column sums to `n`.
    :param kept: bool `(n,)`; which tokens have a code.
    :param codes: uint8 `(kept.sum(), ceil(m / 8))`; the bits of the tokens that have a code, packed in little bit
        order (`numpy.packbits(..., bitorder="little")`).
    :param scales: uint8 `(n,)`, or None where the model stores no scales.
    :param gone: bool `(n,)`; which tokens were merged into others and have no place of their own, None where none was.
    """

    ids: np.ndarray
    windows: np.ndarray
    kept: np.ndarray
    codes: np.ndarray
    scales: np.ndarray | None = None
    gone: np.ndarray | None = None

    def without_gone(self) -> "Passage":
        """The tokens that have a place, closer together."""
        if self.gone is None:
            return self
        left = ~self.gone
        before = np.concatenate([[0], np.cumsum(left)])
        ends = np.cumsum(self.windows[:, 1])
        lengths = before[ends] - before[ends - self.windows[:, 1]]
        windows = np.stack([self.windows[:, 0], lengths.astype(np.int32)], 1)
        scales = None if self.scales is None else self.scales[left]
        return Passage(self.ids[left], windows, self.kept[left], self.codes, scales)
