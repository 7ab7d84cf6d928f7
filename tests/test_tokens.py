# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""Texts as tokens, and what is remembered of them."""

import copy
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from btr_haystack import default_model_path
from btr_haystack.tokens import TokenCache

TOKENIZER = AutoTokenizer.from_pretrained(default_model_path())
TEXTS = st.text(st.characters(), max_size=40)  # lone surrogates too


def room(cache):
    return sum(1024 + 256 * len(encoding) + sys.getsizeof(text) for text, encoding in cache._kept.items())


@given(st.lists(st.lists(TEXTS, max_size=5), max_size=4), st.integers(0, 20_000))
def test_remembering_changes_nothing(calls, most):
    remembering = TokenCache(TOKENIZER, most)
    for texts in calls:
        fresh = TokenCache(TOKENIZER, 0)
        assert remembering.ids(texts) == fresh.ids(texts)
        for text in texts:
            assert np.array_equal(remembering.offsets(text), fresh.offsets(text))
        assert remembering._size == room(remembering) <= most


def test_is_what_the_tokenizer_gives():
    text = "Die Straße (24 km) führt nach Übersee."
    whole = TOKENIZER(text, add_special_tokens=False, return_offsets_mapping=True)
    cache = TokenCache(TOKENIZER)
    assert cache.ids([text, text]) == [whole["input_ids"]] * 2
    assert cache.offsets(text).tolist() == list(map(list, whole["offset_mapping"]))
    assert cache.offsets("").shape == (0, 2)
    assert cache.ids([]) == []


def test_forgets_what_was_not_asked_for_longest():
    cache = TokenCache(TOKENIZER, most=3 * 1400)
    for text in ("one", "two", "three", "one", "four"):
        assert len(cache.ids([text])[0]) == 1
    assert list(cache._kept) == ["three", "one", "four"]
    cache.ids(["these words are too many to keep " * 4])
    assert list(cache._kept) == ["three", "one", "four"]
    cache.clear()
    assert (cache._kept, cache._size) == ({}, 0)


def test_copies_and_threads():
    cache = TokenCache(TOKENIZER, most=20_000)
    texts = [f"passage {i} of some" for i in range(40)]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda text: cache.ids([text])[0], texts * 10))
    assert found == TokenCache(TOKENIZER).ids(texts * 10)
    assert 0 < cache._size == room(cache) <= 20_000
    other = copy.deepcopy(cache)
    assert other._kept == {}
    assert other.ids(texts) == cache.ids(texts)
