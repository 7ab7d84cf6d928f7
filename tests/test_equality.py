# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""With k = 0, answers, offsets and scores are those of TransformersExtractiveReader."""

import pytest
import torch
from conftest import SENTENCES, passage, shipped
from haystack import Document
from transformers import AutoTokenizer, BertForQuestionAnswering

from btr_haystack import BTRForQuestionAnswering, default_model_path, default_teacher_path
from haystack_integrations.components.readers.btr import BTRReader

upstream = pytest.importorskip(
    "haystack_integrations.components.readers.transformers", reason="the extra `compare` is not installed"
)

QUERY = "What is the capital of Norway?"
READABLE = ("bert", "roberta", "electra", "distilbert", "mpnet", "t5")


class Upstream(upstream.TransformersExtractiveReader):
    """The ordinary reader, which hands on the token types that its tokenizer gives, as BERT was trained with them."""

    def warm_up(self):
        if self.model is not None:
            return
        super().warm_up()
        tokenizer, model = self.tokenizer, self.model
        types = []

        def tokenise(*args, **kwargs):
            encoded = tokenizer(*args, **kwargs)
            types[:] = [encoded["token_type_ids"]] if "token_type_ids" in encoded else []
            return encoded

        def read(**inputs):
            return model(**inputs, token_type_ids=types[0]) if types else model(**inputs)

        self.tokenizer, self.model = tokenise, read


def told(answers):
    offsets = [answer.document_offset for answer in answers]
    return [
        (answer.data, answer.document and answer.document.id, offset and (offset.start, offset.end), answer.query)
        for answer, offset in zip(answers, offsets, strict=True)
    ]


def assert_equal(ours, theirs):
    """The same answers in the same order; only what rounding can tell apart may change places, or fall behind top_k."""
    scores = [answer.score for answer in theirs]
    assert [answer.score for answer in ours] == pytest.approx(scores, abs=1e-5)
    expected = dict(zip(told(theirs), scores, strict=True))
    last = min(
        score for score, answer in zip(scores, theirs, strict=True) if answer.data is not None or len(scores) == 1
    )
    for one, answer in zip(told(ours), ours, strict=True):
        assert expected.get(one, last) == pytest.approx(answer.score, abs=1e-5), one
    assert [a.meta for a in ours] == [a.meta for a in theirs]
    assert ours


@pytest.fixture(scope="module")
def both(plain_reader):
    made = {}

    def make(family):
        if family not in made:
            folder = str(plain_reader(family))
            made[family] = BTRReader(folder), Upstream(folder, token=None)
        return made[family]

    return make


@pytest.mark.parametrize("family", READABLE)
class TestEveryFamily:
    def test_short_documents(self, family, both, documents):
        ours, theirs = both(family)
        assert_equal(ours.run(QUERY, documents)["answers"], theirs.run(QUERY, documents)["answers"])

    def test_windows_of_a_long_document(self, family, both, long_document):
        ours, theirs = both(family)
        assert_equal(ours.run(QUERY, [long_document])["answers"], theirs.run(QUERY, [long_document])["answers"])

    def test_mixed_with_an_empty_one(self, family, both, documents, long_document):
        ours, theirs = both(family)
        mixed = [documents[0], Document(content=""), long_document, *documents[1:4], Document(content=" \n ")]
        assert_equal(ours.run(QUERY, mixed)["answers"], theirs.run(QUERY, mixed)["answers"])

    @pytest.mark.parametrize(
        "parameters",
        [
            {"top_k": 3, "no_answer": False},
            {"score_threshold": 0.3},
            {"max_seq_length": 64, "stride": 16},
            {"answers_per_seq": 3, "top_k": 100},
            {"overlap_threshold": 0.5},
            {"overlap_threshold": 1.0, "top_k": 50},
        ],
        ids=str,
    )
    def test_parameters_of_a_run(self, family, both, documents, parameters):
        ours, theirs = both(family)
        assert_equal(
            ours.run(QUERY, documents, **parameters)["answers"], theirs.run(QUERY, documents, **parameters)["answers"]
        )


def test_calibration_and_all_answers(plain_reader, documents):
    settings = {"calibration_factor": 0.02, "overlap_threshold": None, "top_k": 60}
    folder = str(plain_reader("bert"))
    ours, theirs = BTRReader(folder, **settings), Upstream(folder, token=None, **settings)
    assert_equal(ours.run(QUERY, documents)["answers"], theirs.run(QUERY, documents)["answers"])


def test_pages(both):
    ours, theirs = both("roberta")
    text = "The first page.\fOslo is the capital of Norway.\fThe third page ends here."
    documents = [Document(content=text, meta={"page_number": 4}), Document(content=text, meta={"page_number": "4"})]
    assert_equal(ours.run(QUERY, documents)["answers"], theirs.run(QUERY, documents)["answers"])


def test_many_rows_and_small_batches_change_nothing(both, documents, long_document):
    ours, theirs = both("roberta")
    mixed = [*documents, long_document]
    expected = theirs.run(QUERY, mixed)["answers"]
    assert_equal(ours.run(QUERY, mixed, max_batch_size=2)["answers"], expected)


@shipped
@pytest.mark.slow
@pytest.mark.parametrize("folder", [default_model_path(), default_teacher_path()], ids=lambda folder: folder.name)
def test_shipped_models_neither_split_nor_binarised(folder, tmp_path):
    """
    A shipped folder as it is gives the ordinary reader of its weights; ours takes those with k = 0.

    Its fifth answer, of negative logits, ends with a lone space: upstream adds the first letter of the next word.
    """
    BTRForQuestionAnswering.from_reader(folder, k=0, bits=None).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path)
    theirs = upstream.TransformersExtractiveReader(
        str(folder), token=None, top_k=4, model_kwargs={"dtype": torch.float32}
    )
    long = " ".join(passage(number) for number in range(12))
    documents = [Document(content=text) for text in [SENTENCES[0], "", long, *SENTENCES[1:3], " \n "]]
    ours = BTRReader(tmp_path, top_k=4)
    for asked in (documents[:1], documents):
        assert_equal(ours.run(QUERY, asked)["answers"], theirs.run(QUERY, asked)["answers"])


def test_upstream_itself_forgets_token_types(plain_reader, documents, monkeypatch):
    """Why `Upstream` stands in for it above."""
    folder = str(plain_reader("bert"))
    given, forward = [], BertForQuestionAnswering.forward
    monkeypatch.setattr(
        BertForQuestionAnswering, "forward", lambda self, **inputs: given.append(inputs) or forward(self, **inputs)
    )
    for kind in (upstream.TransformersExtractiveReader, Upstream):
        kind(folder, token=None).run(QUERY, documents)
    assert ["token_type_ids" in inputs for inputs in given] == [False, True]
