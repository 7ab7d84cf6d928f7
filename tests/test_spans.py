# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from btr_haystack.spans import best_spans


def naive(start: list[float], end: list[float], inside: list[bool], count: int, longest: int | None) -> list[float]:
    sums = [
        start[i] + end[j]
        for i in range(len(start))
        for j in range(i, len(end))
        if inside[i] and inside[j] and (longest is None or j - i < longest)
    ]
    return sorted(sums, reverse=True)[:count]


@given(data=st.data(), length=st.integers(1, 30), count=st.integers(1, 60), longest=st.none() | st.integers(1, 40))
@settings(max_examples=200, deadline=None)
def test_equals_the_naive_search(data, length, count, longest):
    logits = st.lists(st.integers(-9, 9), min_size=length, max_size=length)
    start, end = data.draw(logits), data.draw(logits)
    inside = data.draw(st.lists(st.booleans(), min_size=length, max_size=length))
    scores, first, last = best_spans(
        torch.tensor([start]).float(), torch.tensor([end]).float(), torch.tensor([inside]), count, longest
    )
    found = [score for score in scores[0].tolist() if score > float("-inf")]
    assert found == naive(start, end, inside, count, longest)
    spans = list(zip(first[0].tolist(), last[0].tolist(), strict=True))[: len(found)]
    assert len(set(spans)) == len(spans)
    for score, (i, j) in zip(found, spans, strict=True):
        assert i <= j
        assert inside[i]
        assert inside[j]
        assert start[i] + end[j] == score
        assert longest is None or j - i < longest


def test_more_spans_than_there_are():
    scores, _, _ = best_spans(torch.zeros(1, 3), torch.zeros(1, 3), torch.ones(1, 3, dtype=torch.bool), 1000)
    assert torch.isfinite(scores).sum() == 6


def test_no_rows_no_tokens_no_spans():
    none = torch.zeros(0, 5)
    assert best_spans(none, none, none.bool(), 3)[0].shape[0] == 0
    assert best_spans(torch.zeros(2, 0), torch.zeros(2, 0), torch.zeros(2, 0).bool(), 3)[0].shape == (2, 0)
    assert best_spans(torch.zeros(2, 4), torch.zeros(2, 4), torch.ones(2, 4).bool(), 0)[0].shape == (2, 0)
