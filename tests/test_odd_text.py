# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""Odd characters in documents and questions: none is cut, lost, or taken for something else."""

import logging

import numpy as np
import pytest
import regex
from conftest import FAMILIES, ODD_TEXT, make_tokenizer
from haystack import Document
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from btr_haystack import default_model_path
from btr_haystack.graphemes import whole_graphemes
from btr_haystack.tokens import TokenCache, part_of
from btr_haystack.windows import clean, encodings, tokenise
from haystack_integrations.components.readers.btr import BTRReader

SHIPPED = AutoTokenizer.from_pretrained(default_model_path())
TOKENIZERS = {family: make_tokenizer(family) for family in FAMILIES} | {"shipped": SHIPPED}
CONTROL = ["</s>", "<s>", "<pad>", "<mask>", "<unk>", "[SEP]", "[CLS]", "[MASK]", "<extra_id_0>", "\uff1c/s\uff1e"]


def borders(text):
    return {0, *(match.end() for match in regex.finditer(r"\X", text))}


@given(ODD_TEXT, st.data())
def test_graphemes_are_those_of_unicode(text, data):
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    every = borders(text)
    assert whole_graphemes(text, start, end) == (
        max(border for border in every if border <= start),
        min(border for border in every if border >= end),
    )


@pytest.mark.parametrize("name", TOKENIZERS)
def test_what_looks_like_a_special_token_is_text(name):
    tokenizer = TOKENIZERS[name]
    control = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    for token in CONTROL:
        for text in (token, f"a{token}b", f"see {token} there", f"{token}{token}"):
            [encoding] = encodings(tokenizer, [text])
            assert control.isdisjoint(encoding.ids)
            assert encoding.ids
            assert max(end for _, end in encoding.offsets) == len(text)  # nothing is left out
    assert tokenise(tokenizer, ["plain", CONTROL[0], "plain"])[0] == tokenise(tokenizer, ["plain"])[0]


@pytest.mark.parametrize("name", TOKENIZERS)
@given(text=ODD_TEXT)
@settings(max_examples=40, deadline=None)
def test_no_token_is_control_and_every_part_is_whole(name, text):
    tokenizer = TOKENIZERS[name]
    control = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    tokens = TokenCache(tokenizer)
    [ids] = tokens.ids([text])
    assert control.isdisjoint(ids)
    offsets = tokens.offsets(text)
    assert offsets.shape == (len(ids), 2)
    assert (np.diff(offsets[:, 1]) >= 0).all()
    for first in range(len(ids)):
        for last in range(first, len(ids)):
            start, end = part_of(text, offsets, first, last)
            assert 0 <= start <= end <= len(text)
            assert start == end or {start, end} <= borders(text)


@pytest.mark.parametrize("text", ["in 1x9 or y", "the  x  y", "x y z", "a b\nc d"])
def test_a_lone_space_takes_no_letter_of_the_word_behind_it(text):
    tokens = TokenCache(SHIPPED)
    [encoding] = tokens.encodings([text])
    offsets = tokens.offsets(text)
    lone = [i for i, piece in enumerate(encoding.tokens) if piece == "\u2581"]
    assert lone
    for i in lone:
        start, end = part_of(text, offsets, i, i)
        assert start == end
        if i:
            start, end = part_of(text, offsets, i - 1, i)
            assert text[start:end] == text[slice(*part_of(text, offsets, i - 1, i - 1))]


@pytest.mark.parametrize("family", ["t5", "bert", "roberta"])
@given(texts=st.lists(ODD_TEXT, min_size=1, max_size=3), query=ODD_TEXT)
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_answer_stands_in_its_document(one_reader, family, texts, query):
    documents = [Document(content=clean(text)) for text in texts]
    for answer in one_reader(family).run(query, documents)["answers"]:
        span, content = answer.document_offset, answer.document.content
        assert answer.data == content[span.start : span.end] != ""
        assert {span.start, span.end} <= borders(content)


@pytest.fixture(scope="module")
def one_reader(split_reader):
    """Gives a reader of a family that keeps every candidate."""
    made = {}

    def make(family):
        if family not in made:
            made[family] = BTRReader(
                split_reader(family), no_answer=False, top_k=50, overlap_threshold=None, progress_bar=False
            )
        return made[family]

    return make


@pytest.mark.parametrize("family", ["t5", "bert"])
def test_a_text_of_unknown_characters_is_told_once(split_reader, family, caplog):
    reader = BTRReader(split_reader(family), progress_bar=False)
    with caplog.at_level(logging.WARNING):
        reader.run("Where is it?", [Document(content="Oslo is x \u2264 5, and \u4e2d is a word here.")])
        assert "unknown to the model's vocabulary" not in caplog.text
        for _ in range(2):
            reader.run("\u8c01\uff1f", [Document(content="\u5317\u4eac\u662f\u4e2d\u56fd\u7684\u9996\u90fd\u3002")])
        reader.run("Who?", [Document(content="\u4e0a\u6d77\u662f\u57ce\u5e02\u3002")])
    told = [line for line in caplog.messages if "unknown to the model's vocabulary" in line]
    assert len(told) == 1
    assert "100 %" in told[0]


def test_bytes_know_every_character(split_reader, caplog):
    BTRReader(split_reader("roberta"), progress_bar=False).run(
        "Who?", [Document(content="\u5317\u4eac\u662f\u4e2d\u56fd")]
    )
    assert "unknown" not in caplog.text
