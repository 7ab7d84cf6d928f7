# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from btr_haystack.windows import clean, window_starts


@given(length=st.integers(0, 500), window=st.integers(1, 60), data=st.data())
def test_windows_cover_the_document_and_share_the_stride(length, window, data):
    stride = data.draw(st.integers(0, window - 1))
    starts = window_starts(length, window, stride)
    covered = {token for a in starts for token in range(a, min(a + window, length))}
    assert covered == set(range(length))
    assert all(b - a == window - stride for a, b in itertools.pairwise(starts))
    assert all(a + window < length for a in starts[:-1])


@given(st.text(alphabet=st.characters(exclude_categories=())))
def test_any_string_can_be_encoded_and_keeps_its_length(text):
    assert len(clean(text)) == len(text)
    clean(text).encode("utf-8")


@pytest.mark.parametrize("text", ["", "plain", "naïve 漢字 \U0001f600"])
def test_ordinary_text_is_left_alone(text):
    assert clean(text) is text
