# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Input that makes other readers stumble: a clear error or a sensible answer, and nothing lost."""

import logging
import math
import tracemalloc
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from conftest import SENTENCES, passage
from haystack import Document, ExtractedAnswer
from torch.utils._python_dispatch import TorchDispatchMode

from btr_haystack import SplitReader, passage_key, spans
from btr_haystack.errors import ModelError
from haystack_integrations.components.readers.btr import BinaryTokenStore, BTRReader
from haystack_integrations.components.readers.btr._answers import with_page_number

QUERY = "What is the capital of Norway?"
KINDS = ("split", "joint")
NO_TEXT = {
    "none": [Document(content=None)],
    "empty": [Document(content="")],
    "both": [Document(content=None), Document(content=""), Document(content=None, meta={"a": 1})],
}
ODD_TEXTS = {
    "spaces": "   ",
    "line breaks": "\n\t\r\n",
    "form feeds": "\f\f",
    "one letter": "x",
    "control characters": "a\x00b\x07c\x1b[31m",
    "zero width": "a\u200bb\u200d\ufeff",
    "right to left": "أوسلو هي عاصمة النرويج. \u202eno\u202c",
    "chinese": "奥斯陆是挪威的首都。",
    "emoji": "👩‍👩‍👧‍👦 🇳🇴 is Norway's flag",
    "combining": "e\u0301" * 50,
    "lone surrogates": "Oslo \ud800 is \udfff the capital",
    "one long word": "a" * 5000,
    "special tokens": "[CLS] [SEP] </s> <pad> <s> [PAD] [MASK]",
    "nothing known": "☃" * 300,
}


@pytest.fixture(scope="module")
def readers(split_reader, plain_reader):
    return {"split": BTRReader(split_reader("bert")), "joint": BTRReader(plain_reader("bert"))}


@pytest.fixture(params=KINDS)
def reader(request, readers):
    return readers[request.param]


class TestUpstreamFaults:
    """What TransformersExtractiveReader 2.0 does wrong, and what happens here instead."""

    @pytest.mark.parametrize("documents", NO_TEXT.values(), ids=NO_TEXT)
    def test_no_document_has_text(self, reader, documents, caplog):
        """ValueError for None, IndexError for empty documents."""
        with caplog.at_level(logging.WARNING):
            out = reader.run(QUERY, documents)
        (answer,) = out["answers"]
        assert (answer.data, answer.document, answer.score, answer.query) == (None, None, 1.0, QUERY)
        assert out["cache"] == {"hits": 0, "misses": 0}
        assert "no text" in caplog.text
        assert reader.run(QUERY, documents, no_answer=False)["answers"] == []

    def test_documents_without_text_among_others(self, reader, documents):
        mixed = [Document(content=None), documents[0], Document(content=""), *documents[1:], Document(content=None)]
        assert reader.run(QUERY, mixed)["answers"] == reader.run(QUERY, documents)["answers"]

    def test_score_threshold_of_zero_at_run_time(self, readers, documents):
        """0.0 gave way to the constructor's."""
        strict = BTRReader(readers["split"].model_name_or_path, score_threshold=1.0, overlap_threshold=None)
        assert strict.run(QUERY, documents)["answers"] == []
        assert len(strict.run(QUERY, documents, score_threshold=0.0)["answers"]) == 21

    def test_top_k_of_zero_at_run_time(self, reader, documents):
        """0 gave way to the constructor's."""
        (answer,) = reader.run(QUERY, documents, top_k=0)["answers"]
        assert (answer.data, answer.score) == (None, 1.0)
        assert reader.run(QUERY, documents, top_k=0, no_answer=False)["answers"] == []

    def test_no_overlap_threshold_at_run_time(self, reader, documents):
        """None gave way to the constructor's."""
        answers = reader.run(QUERY, documents, top_k=1000, overlap_threshold=None)["answers"]
        assert len(answers) == 8 * 20 + 1
        assert len(reader.run(QUERY, documents, top_k=1000)["answers"]) < len(answers)

    def test_overlap_threshold_of_zero_at_run_time(self, readers, documents):
        loose = BTRReader(readers["split"].model_name_or_path, overlap_threshold=None)
        exact = BTRReader(readers["split"].model_name_or_path, overlap_threshold=0.0)
        assert loose.run(QUERY, documents, overlap_threshold=0.0)["answers"] == exact.run(QUERY, documents)["answers"]

    def test_stride_of_zero_at_run_time(self, readers, long_document):
        """0 gave way to the constructor's."""
        folder = readers["joint"].model_name_or_path
        expected = BTRReader(folder, max_seq_length=96, stride=0).run(QUERY, [long_document])["answers"]
        assert readers["joint"].run(QUERY, [long_document], max_seq_length=96, stride=0)["answers"] == expected

    def test_more_answers_for_each_window_than_there_are_spans(self, reader, documents):
        """RuntimeError."""
        short = [Document(content="Oslo."), documents[0]]
        answers = reader.run(QUERY, short, answers_per_seq=1000, top_k=1000, overlap_threshold=None)["answers"]
        spans = {
            (answer.document.id, answer.document_offset.start, answer.document_offset.end) for answer in answers[:-1]
        }
        assert len(spans) == len(answers) - 1 > 3

    def test_token_types_are_handed_on(self, readers, documents, monkeypatch):
        """They were dropped, which changes what BERT says."""
        readers["joint"].warm_up()
        loaded = readers["joint"]._loaded.reader
        seen = []
        forward = loaded.model.encoder.forward
        monkeypatch.setattr(
            loaded.model.encoder, "forward", lambda **inputs: seen.append(inputs["token_type_ids"]) or forward(**inputs)
        )
        readers["joint"].run(QUERY, documents[:1])
        question = len(loaded.tokenizer(QUERY)["input_ids"])
        assert seen[0][0, :question].unique().tolist() == [0]
        assert seen[0][0, question:].unique().tolist() == [1]

    def test_span_scores_stay_small(self):
        """Scores of all pairs of tokens, of all windows at once, took rows x length x length numbers."""
        rows, length = 4, 4000
        start, end = torch.randn(rows, length), torch.randn(rows, length)
        biggest = 0

        class Watch(TorchDispatchMode):
            def __torch_dispatch__(self, function, types, args=(), kwargs=None):
                nonlocal biggest
                out = function(*args, **(kwargs or {}))
                for tensor in out if isinstance(out, (tuple, list)) else [out]:
                    biggest = max(biggest, tensor.numel())
                return out

        with Watch():
            spans.best_spans(start, end, torch.ones(rows, length, dtype=torch.bool), 20)
        assert biggest <= rows * 20 * length

    def test_saving_leaves_the_reader_as_it_is(self):
        """dtypes became text in the living reader."""
        reader = BTRReader("a/model", model_kwargs={"dtype": torch.float16})
        reader.to_dict()
        assert reader.model_kwargs == {"dtype": torch.float16}


class TestDocuments:
    @pytest.mark.parametrize("text", ODD_TEXTS.values(), ids=ODD_TEXTS)
    def test_odd_texts(self, reader, text, documents):
        alone = reader.run(QUERY, [Document(id="odd", content=text)])["answers"]
        assert alone[-1].data is None or alone[0].data is None
        for answer in alone:
            if answer.data is not None:
                span = answer.document_offset
                assert answer.data == text[span.start : span.end]
        beside = reader.run(QUERY, [*documents, Document(id="odd", content=text)], top_k=100)["answers"]
        sensible = [answer for answer in beside if answer.document and answer.document.id != "odd"]
        expected = reader.run(QUERY, documents, top_k=100, no_answer=False)["answers"]
        assert [answer.data for answer in sensible][:5] == [answer.data for answer in expected][:5]

    @pytest.mark.parametrize("text", ODD_TEXTS.values(), ids=ODD_TEXTS)
    def test_odd_texts_come_back_from_disk(self, split_reader, tmp_path, text):
        url, document = f"sqlite:///{tmp_path}/store.db", Document(id="odd", content=text)
        with BinaryTokenStore(split_reader("bert"), url, progress_bar=False) as store:
            assert store.run([document])["documents_written"] == 1
        live = BTRReader(split_reader("bert")).run(QUERY, [document])["answers"]
        stored = BTRReader(token_store=BinaryTokenStore(split_reader("bert"), url)).run(QUERY, [document])
        assert stored == {"answers": live, "cache": {"hits": 1, "misses": 0}}

    def test_a_quarter_of_a_megabyte(self, readers, monkeypatch):
        """Its states are decoded piece by piece: all at once, those of a big model would take gigabytes."""
        text = " ".join(passage(number) for number in range(6_000))[: 1 << 18]
        decoded = []
        decode = SplitReader._decode

        def watch(self, codes, first, last):
            decoded.append(last - first)
            return decode(self, codes, first, last)

        monkeypatch.setattr(SplitReader, "_decode", watch)
        out = readers["split"].run(QUERY, [Document(content=text), Document(content=SENTENCES[0])], top_k=5)
        assert len(out["answers"]) == 6
        assert sum(decoded) > 60_000
        assert max(decoded) <= 8 * 4096

    def test_documents_of_the_same_text(self, reader, documents):
        twins = [Document(content=documents[0].content, meta={"copy": number}) for number in range(3)]
        answers = reader.run(QUERY, twins, top_k=3, no_answer=False)["answers"]
        assert {answer.document.id for answer in answers} == {twin.id for twin in twins}
        assert len({answer.data for answer in answers}) == 1
        assert [answer.score for answer in answers] == pytest.approx([answers[0].score] * 3, abs=1e-5)

    def test_the_same_document_twice(self, reader, documents):
        twice = reader.run(QUERY, [documents[0], documents[0]], no_answer=False)["answers"]
        once = reader.run(QUERY, documents[:1], no_answer=False)["answers"]
        assert [answer.document_offset for answer in twice] == [answer.document_offset for answer in once]
        assert [answer.score for answer in twice] == pytest.approx([answer.score for answer in once], abs=1e-5)

    def test_no_documents(self, reader):
        assert reader.run(QUERY, []) == {"answers": [], "cache": {"hits": 0, "misses": 0}}

    @pytest.mark.parametrize("given", ["some text", ["some text"], [None], [{"content": "some text"}], Document("a")])
    def test_no_documents_at_all(self, reader, split_reader, given):
        with pytest.raises(TypeError, match=r"expected .*Documents"):
            reader.run(QUERY, given)
        with BinaryTokenStore(split_reader(), "memory://", progress_bar=False) as store:
            with pytest.raises(TypeError):
                store.write_documents(given)
            assert store.count_documents() == 0

    def test_page_numbers(self, caplog):
        text = "First.\fOslo is the capital of Norway.\fThird."
        offset = ExtractedAnswer.Span(text.index("Oslo"), text.index("Oslo") + 4)

        def page(number):
            document = Document(content=text, meta={"page_number": number})
            answer = ExtractedAnswer(query=QUERY, score=1.0, data="Oslo", document=document, document_offset=offset)
            return with_page_number(answer).meta.get("answer_page_number")

        whole = (4, 4.0, np.int64(4), np.uint8(4), np.float32(4), Decimal(4), Decimal("4.0"), Fraction(4), 10**400)
        with caplog.at_level(logging.WARNING):
            pages = [page(number) for number in whole]
        assert pages == [*[5] * 8, 10**400 + 1]
        assert {type(number) for number in pages} == {int}
        assert caplog.text == ""
        for number in (
            *("4", "", None, True, False, np.bool_(True), 4.5, math.nan, math.inf, -math.inf, np.float32("nan")),
            *(Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity"), Fraction(9, 2), 4 + 0j, [4], np.array([4])),
        ):
            caplog.clear()
            with caplog.at_level(logging.WARNING):
                assert page(number) is None
            assert "page_number must be int" in caplog.text
            assert str(type(number)) in caplog.text

    def test_page_numbers_of_answers(self, reader):
        text = "First.\fOslo is the capital of Norway.\fThird."
        page = [Document(content=text, meta={"page_number": 4.0})]
        answers = reader.run(QUERY, page, top_k=50, overlap_threshold=None, no_answer=False)["answers"]
        for answer in answers:
            assert answer.meta == {"answer_page_number": 4 + text[: answer.document_offset.start].count("\f")}


class TestQuestions:
    @pytest.mark.parametrize("query", ["", " ", "?", "\n", "Où?", "奥斯陆", "\ud800", "[SEP]", "\x00", "☃" * 40])
    def test_odd_questions(self, reader, documents, query):
        answers = reader.run(query, documents, top_k=3)["answers"]
        assert len(answers) == 4
        assert {answer.query for answer in answers} == {query}

    def test_very_long_question_is_cut(self, reader, documents, caplog):
        query = QUERY + " And then?" * 20_000
        with caplog.at_level(logging.WARNING):
            answers = reader.run(query, documents, top_k=3)["answers"]
        assert len(answers) == 4
        assert answers[0].query == query
        assert "is cut" in caplog.text
        caplog.clear()
        reader.run(QUERY, documents)
        assert "is cut" not in caplog.text

    @pytest.mark.parametrize("query", [None, 7, b"Who?", ["Who?"]])
    def test_no_string(self, reader, documents, query):
        with pytest.raises(TypeError, match=r"query must be a string, not \w+: .*\S"):
            reader.run(query, documents)

    def test_what_can_be_read_only_once(self, reader, documents):
        whole = reader.read_batch([QUERY, QUERY], documents)
        assert len(whole) == 2
        once = reader.read_batch((query for query in [QUERY, QUERY]), (document for document in documents))
        assert once == whole


class TestNoDocuments:
    @pytest.mark.parametrize("documents", [None, "text", b"text", 7, Document(content="text")])
    def test_no_list(self, readers, split_reader, documents, tmp_path):
        with pytest.raises(TypeError, match="expected a list of Documents, not"):
            readers["split"].run(QUERY, documents)
        store = BinaryTokenStore("a/model", f"sqlite:///{tmp_path}/a.db")  # refused before a model is looked for
        for method in (store.run, store.write_documents, store.delete_documents):
            with pytest.raises(TypeError, match="expected a list of Documents, not"):
                method(documents)

    def test_no_policy(self, tmp_path):
        store = BinaryTokenStore("a/model", f"sqlite:///{tmp_path}/a.db")
        with pytest.raises(TypeError, match="policy is 'overwrite'; expected a DuplicatePolicy"):
            store.write_documents([], "overwrite")


class TestParameters:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("top_k", -1),
            ("stride", -1),
            ("stride", 384),
            ("max_seq_length", 0),
            ("max_batch_size", 0),
            ("answers_per_seq", 0),
            ("max_answer_length", 0),
        ],
    )
    def test_out_of_range(self, reader, documents, name, value):
        with pytest.raises(ValueError, match=f"{name} is {value}"):
            BTRReader("a/model", **{name: value})
        with pytest.raises(ValueError, match=f"{name} is {value}"):
            reader.run(QUERY, documents, **{name: value})

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("calibration_factor", 0.0),
            ("calibration_factor", float("inf")),
            ("score_threshold", float("nan")),
            ("overlap_threshold", -0.5),
            ("retrieval_weight", -0.5),
            ("retrieval_weight", float("nan")),
            ("retrieval_weight", float("inf")),
        ],
    )
    def test_out_of_range_for_the_constructor(self, name, value):
        with pytest.raises(ValueError, match=f"{name} is {value}"):
            BTRReader("a/model", **{name: value})

    def test_windows_that_are_not_given(self):
        for kind in (BTRReader, BinaryTokenStore):
            for name in ("max_seq_length", "stride"):
                with pytest.raises(TypeError, match=f"{name} is None; expected a whole number, 0 or more"):
                    kind("a/model", **{name: None})

    @pytest.mark.parametrize("value", [None, "64", 2.5, True])
    def test_no_batch_size(self, value):
        with pytest.raises(TypeError, match=f"batch_size is {value!r}; expected a whole number, 1 or more"):
            BinaryTokenStore("a/model", batch_size=value)

    @pytest.mark.parametrize("value", ["0.5", True])
    def test_no_threshold(self, reader, documents, value):
        with pytest.raises(TypeError, match=f"score_threshold is {value!r}; expected a probability, or None"):
            BTRReader("a/model", score_threshold=value)
        with pytest.raises(TypeError, match=f"score_threshold is {value!r}"):
            reader.run(QUERY, documents, score_threshold=value)

    @pytest.mark.parametrize("value", [0, -0.1, 1.1, float("nan"), "half"])
    def test_no_share(self, reader, documents, value):
        with pytest.raises(ValueError, match=r"kept_share is .*; expected a share above 0 and up to 1"):
            BTRReader("a/model", kept_share=value)
        with pytest.raises(ValueError, match="kept_share is"):
            reader.run(QUERY, documents, kept_share=value)

    @pytest.mark.parametrize(
        "name", ["top_k", "stride", "max_seq_length", "max_batch_size", "answers_per_seq", "max_answer_length"]
    )
    @pytest.mark.parametrize("value", ["5", 2.5, True])
    def test_no_whole_number(self, reader, documents, name, value):
        with pytest.raises(TypeError, match=f"{name} is {value!r}; expected a whole number"):
            BTRReader("a/model", **{name: value})
        with pytest.raises(TypeError, match=f"{name} is {value!r}; expected a whole number"):
            reader.run(QUERY, documents, **{name: value})

    def test_nothing_is_pruned_in_joint_reading(self, readers, documents):
        with pytest.raises(ModelError, match="reads question and passage jointly"):
            readers["joint"].run(QUERY, documents, kept_share=0.5)

    def test_stride_that_a_window_cannot_hold(self, reader, long_document):
        with pytest.raises(ValueError, match="stride"):
            reader.run(QUERY, [long_document], max_seq_length=64, stride=60)

    def test_more_tokens_than_the_model_has_positions(self, reader, long_document):
        with pytest.raises(ValueError, match="512 positions"):
            reader.run(QUERY, [long_document], max_seq_length=600)

    def test_short_documents_with_room_to_spare(self, readers, documents):
        joint = readers["joint"]
        assert joint.run(QUERY, documents, max_seq_length=600) == joint.run(QUERY, documents)


def test_writing_many_documents_takes_no_more_memory(split_reader, tmp_path):
    """Of Python's own: the 896 passages more would take half a megabyte."""

    def peak(count):
        with BinaryTokenStore(
            split_reader(), f"sqlite:///{tmp_path}/{count}.db", batch_size=16, progress_bar=False
        ) as store:
            store.warm_up()
            tracemalloc.start()
            store.write_documents(Document(content=passage(number)) for number in range(count))
            highest = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            return highest

    peak(64)
    assert peak(1024) < peak(128) + 100_000


def test_nothing_of_a_passage_is_mixed_up(readers, documents):
    """Keys are the hash of the text alone: the same text finds its record, any other does not."""
    assert passage_key(documents[0].content) != passage_key(documents[0].content + " ")
    out = readers["split"].run(QUERY, [Document(content=documents[0].content + " a change")])
    assert out["cache"] == {"hits": 0, "misses": 1}
