# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""Fit a model's codes in closed form from sample passages."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from btr_haystack.errors import DataError, ModelError
from btr_haystack.model import BTRForQuestionAnswering
from btr_haystack.padding import padded
from btr_haystack.windows import frame_of, passage_room, tokenise, window_starts


@torch.no_grad()
def fit_codes(
    model: BTRForQuestionAnswering,
    tokenizer: Any,
    texts: Sequence[str],
    *,
    window: int = 256,
    tokens: int = 100_000,
    rows: int = 16,
) -> float:
    """
    Fit token prior, projection and decoder (`docs/method.md`) on the states of sample passages.

    :param model: a reader with k >= 1 and bits >= 0; its codes are replaced.
    :param tokenizer: its tokenizer.
    :param texts: passages like those that will be read; a few hundred are enough.
    :param window: most tokens of a passage part; fewer where the encoder has fewer positions.
    :param tokens: stop after so many.
    :param rows: passages encoded at a time.
    :returns: relative squared error of the codes on the sample, as the next layer's attention sees it.
    :raises ModelError: when the model has no codes.
    :raises DataError: when there is no text to fit on.
    """
    if model.binariser is None:
        msg = f"the reader has no codes to fit (k = {model.config.k}, bits = None); make it with bits >= 0"
        raise ModelError(msg)
    frame, device = frame_of(tokenizer), model.device
    if model.family.positions is not None:
        window = min(window, passage_room(frame, model.family.positions, model.config.max_query_length))
    coded, ids = [], []
    count = 0
    for first in range(0, len(texts), rows):
        parts = [
            [*document[start : start + window], *frame.closing]
            for document in tokenise(tokenizer, list(texts[first : first + rows]))
            for start in window_starts(len(document), window, 0)
        ]
        if not parts:
            continue
        part_ids, mask = (t.to(device) for t in padded(parts, tokenizer.pad_token_id or 0))
        inside = mask.bool()
        states = model.lower(part_ids, mask, passage=True)[inside].float()
        coded.append(model.family.calibrate(states))
        ids.append(part_ids[inside])
        count += len(ids[-1])
        if count >= tokens:
            break
    if not coded:
        msg = f"none of the {len(texts)} texts has a token to fit the codes on"
        raise DataError(msg)
    sample, sample_ids = torch.cat(coded), torch.cat(ids)
    embeddings = F.embedding(sample_ids, model.family.embeddings).float()
    model.binariser.fit(sample, embeddings, model.family.importance().float())
    return model.approximate(sample, sample_ids, coded_share=1.0)[1].item()
