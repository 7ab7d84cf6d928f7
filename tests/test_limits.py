# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""Requests, documents and writers that would take the machine, and what they get."""

import logging
import sqlite3
import threading
from dataclasses import FrozenInstanceError

import pytest
from conftest import passage
from haystack import Document, ExtractedAnswer, Pipeline

from btr_haystack.graphemes import LONGEST, whole_graphemes
from btr_haystack.limits import Limits
from btr_haystack.reader import SplitReader
from btr_haystack.stores import SQLiteStore
from btr_haystack.tokens import TokenCache
from btr_haystack.windows import window_count, window_starts
from haystack_integrations.components.readers.btr import (
    BinaryTokenStore,
    BTRGenerativeReader,
    BTRReader,
    _read_through,
    binary_token_store,
)
from haystack_integrations.components.readers.btr._answers import _shared_part
from haystack_integrations.components.readers.btr._model import LOADING

QUERY = "What is the capital of Norway?"
COMPONENTS = (BTRReader, BTRGenerativeReader, BinaryTokenStore)


@pytest.fixture
def reader(split_reader):
    return BTRReader(split_reader(), progress_bar=False)


@pytest.fixture
def store(split_reader, tmp_path):
    with BinaryTokenStore(split_reader(), f"sqlite:///{tmp_path}/store.db", progress_bar=False) as store:
        yield store


@pytest.fixture
def no_work(monkeypatch):
    """Whatever would load a model or read with one fails."""

    def fail(*_, **__):
        raise AssertionError

    monkeypatch.setattr(SplitReader, "from_pretrained", fail)
    monkeypatch.setattr(SplitReader, "code", fail)


class TestLimits:
    def test_are_saved_as_plain_dictionaries(self):
        for component in COMPONENTS:
            for given in (Limits(documents=7), {"documents": 7}, None):
                one = component("a/model", limits=given)
                saved = one.to_dict()["init_parameters"]["limits"]
                assert type(saved) is dict
                assert saved["documents"] == (1000 if given is None else 7)
                assert component.from_dict(one.to_dict()).limits == one.limits == Limits.of(saved)
        pipeline = Pipeline()
        pipeline.add_component("reader", BTRReader("a/model", limits={"answers": 30}))
        assert Pipeline.loads(pipeline.dumps()).get_component("reader").limits == Limits(answers=30)

    def test_of_the_store_are_its_readers(self, store):
        store = BinaryTokenStore("a/model", "memory://", limits={"documents": 5})
        assert BTRReader(token_store=store).limits.documents == 5
        assert BTRReader(token_store=store, limits={}).limits == Limits()

    @pytest.mark.parametrize(
        ("given", "error", "told"),
        [
            ("many", TypeError, "limits is 'many'; expected Limits, or a dictionary"),
            ({"pages": 5}, ValueError, "limits has 'pages', which there is not; expected some of: documents"),
            ({"documents": 0}, ValueError, "limits has documents = 0; expected a whole number, 1 or more"),
            ({"documents": True}, TypeError, "limits has documents = True"),
            ({"characters": 1e9}, TypeError, "limits has characters = 1000000000.0"),
            ({"answers": None}, TypeError, "limits has answers = None"),
            ({"windows_per_document": 65_536}, ValueError, "expected a whole number from 1 to 65535"),
            ({5: 5}, ValueError, "limits has 5, which there is not"),
        ],
    )
    def test_that_are_none(self, given, error, told):
        for component in COMPONENTS:
            with pytest.raises(error, match=told):
                component("a/model", limits=given)

    def test_cannot_be_changed(self, reader):
        with pytest.raises(FrozenInstanceError):
            reader.limits.documents = 10**9
        with pytest.raises(TypeError, match="limits"):
            reader.run(QUERY, [], limits={"documents": 10**9})


class TestRequests:
    """All of them are refused before a model is loaded, let alone read with."""

    @pytest.mark.parametrize(
        ("name", "value", "field"),
        [
            ("top_k", 1001, "answers"),
            ("top_k", 10**30, "answers"),
            pytest.param("top_k", 10**5000, "answers", id="top_k-of-5000-digits"),
            ("answers_per_seq", 10**6, "answers"),
            ("second_read", 10**6, "documents"),
            ("max_seq_length", 5000, "sequence_length"),
        ],
    )
    def test_parameters(self, no_work, name, value, field):
        reader = BTRReader("a/model", second_model="another/model")
        told = rf"{name} is .*; expected at most \d+\. .*larger '{field}'"
        with pytest.raises(ValueError, match=told):
            reader.run(QUERY, [Document(content="Oslo.")], **{name: value})
        with pytest.raises(ValueError, match=told):
            reader.read_batch([QUERY], [Document(content="Oslo.")], **{name: value})
        with pytest.raises(ValueError, match=told):
            BTRReader("a/model", second_model="another/model", **{name: value})

    def test_sequence_length_of_the_others(self):
        for component in COMPONENTS:
            with pytest.raises(ValueError, match="max_seq_length is 5000; expected at most 1024"):
                component("a/model", max_seq_length=5000)
            assert component("a/model", max_seq_length=5000, limits={"sequence_length": 5000}).max_seq_length == 5000

    @pytest.mark.parametrize("component", [BTRReader, BTRGenerativeReader])
    def test_texts(self, no_work, component):
        reader, some = component("a/model"), [Document(content="Oslo.")]
        for query, documents, told in (
            (QUERY, some * 1001, "number of Documents is 1001; expected at most 1000"),
            (QUERY, [Document(content="")] * 1001, "number of Documents is 1001"),
            (QUERY, [Document(content="a" * 600_000)] * 2, r"number of characters .* is 12000\d\d; expected at most"),
            ("a" * 1_000_001, some, "number of characters .* is 1000006"),
        ):
            with pytest.raises(ValueError, match=told):
                reader.run(query, documents)
        with pytest.raises(ValueError, match="number of queries is 1001; expected at most 1000"):
            reader.read_batch([QUERY] * 1001, some)

    def test_fields_of_a_template_count_with_each_document(self, no_work):
        reader = BTRGenerativeReader("a/model", passage_template="{title}: {content}")
        long = [Document(content="Oslo.", meta={"title": "a" * 1_000_000})]
        with pytest.raises(ValueError, match=r"number of characters .*larger 'characters'"):
            reader.run(QUERY, long)
        with pytest.raises(ValueError, match=r"number of characters .*larger 'characters'"):
            reader.run("a" * 5000, [Document(content="Oslo.")] * 500)  # the query is read with each

    @pytest.mark.parametrize("stride", [329, 338])
    @pytest.mark.parametrize("k", [0, 2])
    def test_stride_that_brings_next_to_nothing(self, plain_reader, split_reader, monkeypatch, k, stride):
        reader = BTRReader(split_reader() if k else plain_reader("bert"))
        reader.warm_up()
        monkeypatch.setattr("btr_haystack.reader.window_starts", None)
        text = Document(content="a b " * 500)
        with pytest.raises(ValueError, match=r"tokens to read for each token of the text 'a b .*larger 'tokens_per_t"):
            reader.run(QUERY, [text], stride=stride)

    def test_windows_of_next_to_nothing(self, reader):
        """Each has the question beside it."""
        with pytest.raises(ValueError, match="larger 'tokens_per_token'"):
            reader.run(QUERY, [Document(content="a b " * 500)], max_seq_length=27, stride=0)

    def test_windows(self, split_reader):
        reader = BTRReader(split_reader(), limits={"windows_per_document": 3})
        reader.warm_up()
        short, long = Document(content="a b " * 300), Document(content="a b " * 600)
        assert reader.run(QUERY, [short])["answers"]
        with pytest.raises(ValueError, match=r"number of windows of .* is 5; expected at most 3.*split the Document"):
            reader.run(QUERY, [long])

    def test_huge_but_harmless(self, reader, documents):
        expected = reader.run(QUERY, documents)["answers"]
        assert reader.run(QUERY, documents, max_batch_size=10**30, max_answer_length=10**30)["answers"] == expected

    def test_tokens_that_answers_are_written_from(self, generative, documents):
        writer = BTRGenerativeReader(generative, limits={"tokens_attended": 50}, kept_share=1.0)
        with pytest.raises(ValueError, match=r"1 beams or answers over \d+ tokens .*at most 50.*'tokens_attended'"):
            writer.run(QUERY, documents)
        assert writer.run(QUERY, [Document(content="Oslo.")])["answers"]


@pytest.mark.parametrize("length", [0, 1, 9, 10, 11, 12, 13, 100])
def test_windows_are_counted_without_making_them(length):
    for stride in range(10):
        assert window_count(length, 10, stride) == len(window_starts(length, 10, stride))
    assert window_count(10**15, 10, 9) == 10**15 - 9


class TestIndexing:
    def test_what_cannot_be_kept_is_named_and_left_out(self, split_reader, documents, caplog):
        limits = {"characters": 5000, "windows_per_document": 3}
        store = BinaryTokenStore(split_reader(), "memory://", progress_bar=False, limits=limits)
        long = Document(id="too long", content="a" * 5001)
        many = [Document(id=f"windows {number}", content=f"{number} " + "a b " * 600) for number in range(4)]
        with caplog.at_level(logging.WARNING):
            found = store.run([*documents[:4], long, *many, *documents[4:]])
        assert found["documents_written"] == store.count_documents() == 8
        assert len(found["documents"]) == 13
        [told] = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
        assert told.startswith("5 documents are beyond the limits")
        assert "'too long': the number of characters" in told
        assert "'windows 0': the number of windows" in told
        assert "'windows 3'" not in told

    def test_more_windows_than_a_record_holds(self, split_reader, documents, caplog):
        limits = {"windows_per_document": 65_535, "tokens_per_token": 100}
        store = BinaryTokenStore(split_reader(), "memory://", max_seq_length=27, stride=0, limits=limits)
        with caplog.at_level(logging.WARNING):
            assert store.write_documents([Document(id="endless", content="a " * 140_000), documents[0]]) == 1
        assert "'endless'" in caplog.text

    def test_is_told_of_even_if_the_stream_breaks(self, store, caplog):
        def stream():
            yield Document(id="too long", content="a" * 1_000_001)
            raise RuntimeError

        with caplog.at_level(logging.WARNING), pytest.raises(RuntimeError):
            store.write_documents(stream())
        assert "1 documents are beyond" in caplog.text

    def test_batches_count_characters(self, store, monkeypatch):
        seen = []
        made = TokenCache._made
        monkeypatch.setattr(TokenCache, "_made", lambda self, texts: seen.append(texts) or made(self, texts))
        monkeypatch.setattr(binary_token_store, "BATCH_CHARACTERS", 1000)
        texts = [f"{number} " + "Oslo is a town. " * 30 for number in range(8)]
        assert store.write_documents([Document(content=text) for text in texts]) == 8
        assert max(sum(map(len, one)) for one in seen) <= 1000
        assert [text for one in seen for text in one] == texts

    def test_a_batch_is_written_before_the_next_document_is_taken(self, split_reader):
        store = BinaryTokenStore(split_reader(), "memory://", batch_size=2, progress_bar=False)
        counts = []

        def stream():
            for number in range(5):
                counts.append(store.count_documents() if number else 0)
                yield Document(content=passage(number))

        assert store.write_documents(stream()) == 5
        assert counts == [0, 0, 2, 2, 4]

    def test_questions_encode_tokens_not_documents_at_a_time(self, reader, documents, monkeypatch):
        sizes = []
        code = SplitReader.code
        monkeypatch.setattr(_read_through, "CHUNK_TOKENS", 100)
        monkeypatch.setattr(
            SplitReader,
            "code",
            lambda self, some, **given: sizes.append([len(one.ids) for one in some]) or code(self, some, **given),
        )
        assert reader.run(QUERY, documents)["cache"]["misses"] == 8
        assert all(sum(one) <= 100 or len(one) == 1 for one in sizes)
        assert sum(map(len, sizes)) == 8

    def test_a_large_text_is_tokenised_apart(self):
        seen = []

        class Told(TokenCache):
            def _made(self, texts):
                seen.append(sum(map(len, texts)))
                return [type("Encoding", (), {"ids": [7]})()] * len(texts)

        cache = Told(None)
        assert cache.ids(["a" * 200_000] * 5, remember=False) == [[7]] * 5
        assert max(seen) == 200_000


class TestWriteBack:
    def test_can_be_switched_off(self, store, documents):
        store.write_documents(documents[:3])
        quiet = BinaryTokenStore(store.model_name_or_path, store.url, write_back=False)
        assert BinaryTokenStore.from_dict(quiet.to_dict()).write_back is False
        reader = BTRReader(token_store=quiet)
        for _ in range(2):
            assert reader.run(QUERY, documents)["cache"] == {"hits": 3, "misses": 5}
        assert store.count_documents() == 3
        assert quiet.write_documents(documents) == 5
        with pytest.raises(TypeError, match="write_back is 'no'; expected True or False"):
            BinaryTokenStore(write_back="no")

    def test_a_foreign_writer_slows_no_question(self, store, documents, monkeypatch, caplog):
        """The minute that indexing waits would be seen here: the lock is let go only behind the questions."""
        waits = []
        put_many = SQLiteStore.put_many
        monkeypatch.setattr(
            SQLiteStore,
            "put_many",
            lambda self, items, wait=None: waits.append(wait) or put_many(self, items, wait=wait),
        )
        reader = BTRReader(token_store=store)
        reader.warm_up()
        foreign = sqlite3.connect(store.open(store.reader.fingerprint).path, isolation_level=None)
        foreign.execute("BEGIN IMMEDIATE")
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                assert reader.run(QUERY, documents)["cache"] == {"hits": 0, "misses": 8}
        foreign.execute("ROLLBACK")
        foreign.close()
        assert caplog.text.count("they cannot be stored") == 1
        assert waits
        assert all(0 <= wait < 1 for wait in waits)
        assert reader.run(QUERY, documents)["cache"] == {"hits": 0, "misses": 8}
        assert reader.run(QUERY, documents)["cache"] == {"hits": 8, "misses": 0}
        waits.clear()
        store.write_documents([Document(content="Another one.")])
        assert waits == [None]

    def test_nor_does_another_thread_that_writes(self, store, documents):
        reader = BTRReader(token_store=store)
        reader.warm_up()
        opened = store.open(store.reader.fingerprint)
        writing, done = threading.Event(), threading.Event()

        def slowly():
            writing.set()
            done.wait(60)
            yield from ()

        thread = threading.Thread(target=opened.put_many, args=(slowly(),))
        thread.start()
        try:
            assert writing.wait(60)
            assert reader.run(QUERY, documents)["cache"] == {"hits": 0, "misses": 8}
            assert not done.is_set()
        finally:
            done.set()
            thread.join()


@pytest.mark.parametrize("kept", ["store", "own"])
def test_a_warm_read_takes_no_lock_of_the_process(store, reader, documents, kept):
    reader = BTRReader(token_store=store) if kept == "store" else reader
    reader.run(QUERY, documents)
    answered = threading.Event()

    def ask():
        reader.run(QUERY, documents)
        reader.run(QUERY, [Document(content="A new one about Oslo.")])
        assert kept == "own" or store.count_documents() == 9
        answered.set()

    with LOADING:  # as while another component loads
        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        assert answered.wait(60)
    thread.join()


class TestBoundByConstruction:
    def test_answers_that_overlap_are_told_apart_alike_however_many(self, reader):
        one = Document(content="a" * 500)
        places = [(start, start + 1 + (7 * start + 3 * step) % 40) for start in range(400) for step in range(2)]
        answers = [
            ExtractedAnswer(
                query=QUERY, data="a", document=one, score=1.0, meta={}, document_offset=ExtractedAnswer.Span(*place)
            )
            for place in places
        ]
        for threshold in (0.0, 0.01, 0.5, 0.9, 1.0):
            kept = []
            for answer in answers:
                shares = (_shared_part(answer.document_offset, other.document_offset) for other in kept)
                if not any(share > threshold for share in shares):
                    kept.append(answer)
            assert reader.deduplicate_by_overlap(answers, threshold) == kept

    def test_a_grapheme_without_end_is_not_sought_to_its_end(self, monkeypatch):
        looked = []
        monkeypatch.setattr("btr_haystack.graphemes._certain", lambda text, place: looked.append(place))
        text = "a" + "\u0301" * 100_000
        start, end = whole_graphemes(text, 50_000, 50_001)
        assert 50_000 - LONGEST <= start <= 50_000 < end <= 50_001 + LONGEST
        assert len(looked) <= 2 * LONGEST

    def test_an_answer_that_stands_everywhere_is_cited(self, generative, monkeypatch):
        writer = BTRGenerativeReader(generative)
        writer.warm_up()
        calls = []
        encodings = TokenCache.encodings
        monkeypatch.setattr(TokenCache, "encodings", lambda self, texts: calls.append(1) or encodings(self, texts))
        from btr_haystack.citation import Cited

        loaded = writer._loaded.reader
        cited = Cited(["king " * 3000], loaded.token_cache, loaded.tokenizer.unk_token_id)
        text, place = cited.find("king", lambda one: float(cited.tokens_at(one)[0]))
        assert (text, place.start) == ("king", 5 * 2999)
        assert len(calls) == 1  # not once for each of 3,000 places
