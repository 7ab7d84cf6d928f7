# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""BTRGenerativeReader as a Haystack user meets it."""

import asyncio
import json
from dataclasses import replace
from unittest.mock import patch

import hypothesis
import numpy as np
import pytest
import regex
import torch
from conftest import ODD_TEXT, passage
from haystack import Document, GeneratedAnswer, Pipeline
from haystack.components.joiners import AnswerJoiner
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.utils import ComponentDevice
from hypothesis import strategies as st
from transformers import GenerationConfig

from btr_haystack import Compression, GenerativeReader
from btr_haystack.errors import FingerprintError, ModelError
from btr_haystack.windows import clean
from haystack_integrations.components.readers.btr import BinaryTokenStore, BTRGenerativeReader, BTRReader

QUERY = "What is the capital of Norway?"
WRITE = {"max_new_tokens": 8, "min_new_tokens": 4}


@pytest.fixture
def store(generative, tmp_path):
    with BinaryTokenStore(generative, f"sqlite:///{tmp_path}/store.db", progress_bar=False) as made:
        yield made


@pytest.fixture
def reader(store):
    return BTRGenerativeReader(token_store=store, generation_kwargs=WRITE)


@pytest.fixture
def pipeline(reader, documents):
    held = InMemoryDocumentStore()
    held.write_documents(documents)
    made = Pipeline()
    made.add_component("retriever", InMemoryBM25Retriever(held, top_k=4))
    made.add_component("reader", reader)
    made.connect("retriever.documents", "reader.documents")
    return made


GIVEN = {"retriever": {"query": QUERY}, "reader": {"query": QUERY}}


def test_answers(reader, store, documents, generative):
    store.write_documents(documents[:5])
    out = reader.run(QUERY, documents)
    assert out["cache"] == {"hits": 5, "misses": 3}
    [answer] = out["answers"]
    assert isinstance(answer, GeneratedAnswer)
    assert (answer.query, answer.documents) == (QUERY, documents)
    engine = GenerativeReader.from_pretrained(generative)
    [[same]] = engine.write([QUERY], engine.encode([one.content for one in documents]), **WRITE)
    assert answer.data == same.text
    score = pytest.approx(same.score, abs=1e-4)
    assert answer.meta == {"score": score, "citation": answer.meta["citation"], "hits": 5, "misses": 3}
    again = reader.run(QUERY, documents)
    assert again["cache"] == {"hits": 8, "misses": 0}
    assert again["answers"][0].data == answer.data


def test_one_store_two_readers(reader, store, documents):
    """What one reader has encoded, the other finds."""
    reader.run(QUERY, documents)
    found = BTRReader(token_store=store).run(QUERY, documents)
    assert found["cache"] == {"hits": 8, "misses": 0}
    assert found["answers"]


def handed_on(reader, documents, **parameters):
    """What a run asks of the engine."""
    with patch.object(GenerativeReader, "write", autospec=True, side_effect=GenerativeReader.write) as write:
        reader.run(QUERY, documents, **parameters)
    return write.call_args.kwargs


def test_run_parameters(reader, documents):
    assert len(reader.run(QUERY, documents, top_k=3)["answers"]) == 3
    given = {"max_new_tokens": 9, "num_beams": 2}
    assert handed_on(reader, documents, generation_kwargs=given).items() >= (WRITE | given).items()
    plain = reader.run(QUERY, documents)["answers"][0]
    small = reader.run(QUERY, documents, max_batch_size=1)["answers"][0]
    assert (small.data, small.meta["score"]) == (plain.data, pytest.approx(plain.meta["score"], abs=1e-4))
    for merged, expected in (
        ({"merged_inside": 0.2}, Compression(0.2, 0.0, 3)),
        ({"merged_across": 0.3, "merge_every": 2}, Compression(0.0, 0.3, 2)),
    ):
        assert handed_on(reader, documents, **merged)["compression"] == expected
    pruned = reader.run(QUERY, documents, kept_share=0.3)
    assert pruned["cache"] == {"hits": 8, "misses": 0}
    assert pruned["answers"][0].documents == documents
    ranked = [replace(one, score=float(place)) for place, one in enumerate(documents)]
    limits = handed_on(reader, ranked, kept_share=0.3)
    assert limits["kept_share"] == 0.3
    assert np.allclose(np.exp(limits["prior"]), [1 / rank for rank in range(8, 0, -1)])
    batch = reader.read_batch([QUERY, "Who?"], documents, top_k=2)
    assert [[one.query for one in answers] for answers in batch] == [[QUERY] * 2, ["Who?"] * 2]
    assert batch[0][0].data == reader.run(QUERY, documents, top_k=2)["answers"][0].data


def test_prompt(generative, documents):
    asked = BTRGenerativeReader(generative, prompt="question: {query}", generation_kwargs=WRITE)
    plain = BTRGenerativeReader(generative, generation_kwargs=WRITE)
    [one], [two] = asked.run("{x} %s?", documents)["answers"], plain.run("question: {x} %s?", documents)["answers"]
    assert one.data == two.data
    assert one.query == "{x} %s?"


def test_an_ordinary_model_is_fusion_in_decoder(seq2seq, documents, caplog):
    reader = BTRGenerativeReader(seq2seq, generation_kwargs=WRITE)
    out = reader.run(QUERY, documents)
    assert "nothing is kept of a passage" in caplog.text
    assert out["cache"] == {"hits": 0, "misses": 8}
    engine = GenerativeReader.from_pretrained(seq2seq)
    [[same]] = engine.write_jointly([QUERY], [one.content for one in documents], **WRITE)
    assert out["answers"][0].data == same.text


def test_a_saved_pipeline_loaded_again(pipeline):
    pipeline.get_component("reader").merged_across = 0.1
    first = pipeline.run(GIVEN)["reader"]
    assert first["cache"] == {"hits": 0, "misses": 4}
    again = Pipeline.loads(pipeline.dumps())
    out = again.run(GIVEN)["reader"]
    assert out["cache"] == {"hits": 4, "misses": 0}
    assert [one.data for one in out["answers"]] == [one.data for one in first["answers"]]
    assert again.get_component("reader").to_dict() == pipeline.get_component("reader").to_dict()


def test_async(pipeline):
    assert asyncio.run(pipeline.run_async(GIVEN))["reader"]["answers"][0].data == (
        pipeline.run(GIVEN)["reader"]["answers"][0].data
    )


def test_where_generated_answers_are_expected(pipeline):
    pipeline.add_component("joiner", AnswerJoiner())
    pipeline.connect("reader.answers", "joiner.answers")
    [answer] = pipeline.run(GIVEN)["joiner"]["answers"]
    assert isinstance(answer, GeneratedAnswer)


def test_settings_are_saved_whole(store):
    reader = BTRGenerativeReader(
        device=ComponentDevice.from_str("cpu"), top_k=2, max_batch_size=4, generation_kwargs={"num_beams": 3},
        model_kwargs={"dtype": "float32"}, token_store=store, prompt="q: {query}", merged_inside=0.1,
        merged_across=0.2, merge_every=2, kept_share=0.4, progress_bar=True,
    )  # fmt: skip
    saved = reader.to_dict()
    assert BTRGenerativeReader.from_dict(saved).to_dict() == saved
    assert saved["init_parameters"].keys() >= {"prompt", "merged_inside", "generation_kwargs", "token_store"}


def test_a_generation_config_is_saved(pipeline):
    config = GenerationConfig(max_new_tokens=5, min_new_tokens=5, num_beams=2)
    pipeline.get_component("reader").generation_kwargs = {"generation_config": config}
    first = pipeline.run(GIVEN)["reader"]["answers"][0]
    again = Pipeline.loads(pipeline.dumps()).run(GIVEN)["reader"]["answers"][0]
    assert again.data == first.data


def test_long_and_odd_documents(reader, long_document):
    odd = [
        Document(content=None),
        Document(content=""),
        Document(content=" \n"),
        Document(id="odd", content="日本 \ud800 ✓"),
    ]
    out = reader.run(QUERY, [*odd, long_document])
    assert out["cache"] == {"hits": 0, "misses": 3}
    assert out["answers"][0].documents == [odd[2], odd[3], long_document]
    assert reader.run(QUERY, [])["answers"] == reader.run(QUERY, odd[:2])["answers"] == []
    assert reader.run("", [long_document])["answers"]
    assert reader.run("why " * 500, [long_document])["answers"]


def test_refusals(generative, split_reader, store, documents):
    for given, told in (
        ({"model": generative, "prompt": "question"}, "expected a text with {query}"),
        ({"model": generative, "top_k": 0}, "top_k is 0"),
        ({"model": generative, "generation_kwargs": {"num_return_sequences": 2}}, "use top_k"),
        ({"model": generative, "generation_kwargs": {"num_beams": 0}}, "num_beams is 0; expected 1 or more"),
        ({"model": generative, "generation_kwargs": {"tokenizer": 2}}, "which the reader sets itself"),
        ({"model": generative, "generation_kwargs": {"kept_share": 0.5}}, "use kept_share"),
        ({"model": generative, "merged_inside": 0.9}, "merged_inside is 0.9; expected a share from 0 to 0.5"),
        ({"model": generative, "merge_every": 0}, "merge_every is 0; expected 1 or more"),
        ({"model": generative, "kept_share": 0}, "kept_share is 0; expected a share above 0 and up to 1"),
        ({"model": generative, "kept_share": True}, "kept_share is True"),
        ({"model": generative, "stride": 400}, "stride is 400"),
        ({"token_store": store, "stride": 64}, "Give both the same"),
    ):
        with pytest.raises(ValueError) as error:
            BTRGenerativeReader(**given)
        assert told in str(error.value)
    reader = BTRGenerativeReader(generative)
    with pytest.raises(TypeError, match="generation_kwargs is 7"):
        reader.run(QUERY, documents, generation_kwargs=7)
    with pytest.raises(TypeError, match="generation_config is 'x'; expected transformers' GenerationConfig"):
        reader.run(QUERY, documents, generation_kwargs={"generation_config": "x"})
    with pytest.raises(TypeError, match="query must be a string"):
        reader.run(None, documents)
    with pytest.raises(TypeError, match="expected Documents"):
        reader.run(QUERY, ["text"])
    with pytest.raises(ModelError, match="has no decoder and cannot write"):
        BTRGenerativeReader(split_reader("t5")).warm_up()
    with pytest.raises(ModelError, match="has no decoder and cannot write"):
        BTRGenerativeReader(split_reader("bert")).warm_up()


def test_a_store_of_another_model(generative, split_reader, tmp_path, documents):
    url = f"sqlite:///{tmp_path}/other.db"
    BinaryTokenStore(split_reader("bert"), url, progress_bar=False).write_documents(documents)
    with pytest.raises(FingerprintError):
        BTRGenerativeReader(generative, token_store=BinaryTokenStore(generative, url)).warm_up()


def test_joint_models_take_no_store_and_merge_nothing_inside(seq2seq, documents):
    with pytest.raises(ModelError, match="cannot use a token store"):
        BTRGenerativeReader(token_store=BinaryTokenStore(seq2seq, "memory://")).warm_up()
    with pytest.raises(ModelError, match=r"merged_inside is 0\.2"):
        BTRGenerativeReader(seq2seq, merged_inside=0.2).run(QUERY, documents)
    with pytest.raises(ModelError, match=r"kept_share is 0\.5, .* reads question and passage jointly"):
        BTRGenerativeReader(seq2seq, kept_share=0.5).run(QUERY, documents)
    assert BTRGenerativeReader(seq2seq, merged_across=0.2).run(QUERY, documents)["answers"]


def test_a_store_that_merges(generative, documents, tmp_path):
    stores = {
        share: BinaryTokenStore(generative, f"sqlite:///{tmp_path}/{share}.db", merged_share=share, progress_bar=False)
        for share in (0.0, 0.3)
    }
    for store in stores.values():
        store.write_documents(documents[:5])
    assert stores[0.3].report().file_bytes < stores[0.0].report().file_bytes
    for share, store in stores.items():
        reader = BTRGenerativeReader(token_store=store, generation_kwargs=WRITE)
        out = Pipeline.loads(_alone(reader).dumps()).run({"reader": {"query": QUERY, "documents": documents}})
        assert out["reader"]["cache"] == {"hits": 5, "misses": 3}
        assert reader.run(QUERY, documents)["cache"] == {"hits": 8, "misses": 0}
        assert reader.token_store.merged_share == share
    cut = BinaryTokenStore(generative, f"sqlite:///{tmp_path}/cut.db", bits=8, merged_share=0.3, progress_bar=False)
    assert cut.copy_from(stores[0.3]) == 8
    assert BTRGenerativeReader(token_store=cut).run(QUERY, documents)["cache"] == {"hits": 8, "misses": 0}
    with pytest.raises(FingerprintError, match="they cannot be cut to"):
        BinaryTokenStore(generative, f"sqlite:///{tmp_path}/plain.db", bits=8).copy_from(stores[0.3])
    with pytest.raises(FingerprintError):
        BinaryTokenStore(generative, stores[0.3].url).write_documents(documents)
    with pytest.raises(ValueError, match=r"token_store has merged_share = 0\.3"):
        BTRReader(token_store=stores[0.3])
    for share, error in ((0.6, ValueError), (-1, ValueError), ("a", TypeError), (True, TypeError), (None, TypeError)):
        with pytest.raises(error, match=f"merged_share is {share!r}; expected a share from 0 to 0.5"):
            BinaryTokenStore(generative, merged_share=share)


def _alone(reader):
    pipeline = Pipeline()
    pipeline.add_component("reader", reader)
    return pipeline


def test_close_and_use_again(reader, documents):
    first = reader.run(QUERY, documents)["answers"][0].data
    reader.close()
    assert reader._loaded is None
    assert reader.run(QUERY, [*documents, Document(content=passage(99))])["cache"] == {"hits": 8, "misses": 1}
    assert reader.run(QUERY, documents)["answers"][0].data == first
    assert Compression() == reader._settings().compression


@pytest.fixture
def writes(reader):
    """Makes the reader write what a test says, token by token, whatever it is asked."""
    reader.warm_up()
    model, tokenizer = reader._loaded.reader.model, reader._loaded.reader.tokenizer

    def say(*answers):
        ids = tokenizer(list(answers), padding=True, return_tensors="pt")["input_ids"]
        scores = -torch.arange(len(answers)) / 10
        return patch.object(model, "write", lambda views, **settings: (ids, scores))

    return say


TEXTS = [
    "The loop runs while x \u2264 5 \u2227 y \u2260 {0}.",
    "Ulica \u0141\u00f3d\u017aka is a street\nin \u010cesk\u00e9 Bud\u011bjovice.",
    "A cat is no cathedral. Rene\u0301 is a name.",
]


@pytest.mark.parametrize(
    ("said", "number", "answer"),
    [
        ("x \u2264 5 \u2227 y \u2260", 0, "x \u2264 5 \u2227 y \u2260"),  # not one of the signs is in the vocabulary
        ("\u010cesk\u00e9 Bud\u011bjovice", 1, "\u010cesk\u00e9 Bud\u011bjovice"),
        ("ulica \u0141\u00f3d\u017aka", 1, "Ulica \u0141\u00f3d\u017aka"),
        ("street in \u010cesk\u00e9", 1, "street\nin \u010cesk\u00e9"),
        ("cat", 2, "cat"),
        ("Ren\u00e9", 2, "Rene\u0301"),
    ],
)
def test_what_stands_in_a_document_comes_out_as_it_stands(reader, writes, caplog, said, number, answer):
    documents = [Document(content=text) for text in TEXTS]
    with writes(said):
        [found] = reader.run(QUERY, documents)["answers"]
    assert found.data == answer
    start = TEXTS[number].index(answer)
    assert found.meta["citation"] == {"document": documents[number].id, "start": start, "end": start + len(answer)}
    assert "stand in none" not in caplog.text
    assert GeneratedAnswer.from_dict(found.to_dict()).meta == found.meta


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("now while x \u2264 6", "now while x \u2264 6"),  # the sign is taken from the place that is like it
        ("hedr", "hedr"),  # a part of a word
        ("y \u2264 5", "y \ufffd 5"),  # another sign may be meant
        ("\u0416b", "\ufffdb"),  # as good as any of the unknown characters there
        ("e", "e"),
        ("", ""),
    ],
)
def test_what_stands_nowhere_is_told(reader, writes, caplog, said, answer):
    with writes(said):
        [found] = reader.run(QUERY, [Document(content=text) for text in TEXTS])["answers"]
    assert (found.data, found.meta["citation"]) == (answer, None)
    assert "1 of 1 answers stand in none of the documents" in caplog.text


def test_an_empty_answer_is_never_sure(reader, writes, documents):
    with writes("", "Oslo"):
        first, last = reader.run(QUERY, documents, top_k=2)["answers"]
    assert (first.data, last.data) == ("Oslo", "")
    assert last.meta["score"] < -700
    assert json.loads(json.dumps(last.meta, allow_nan=False)) == last.meta


def test_of_several_places_the_span_head_chooses(reader, writes):
    """An unknown word is like any other one in the model's eyes."""
    words = ("\u03b5\u03b9\u03c1\u03ae\u03bd\u03b7", "\u03c0\u03cc\u03bb\u03b5\u03bc\u03bf\u03c2")
    text = f"The word for peace is {words[0]}, for war {words[1]}."
    reader.warm_up()
    engine = reader._loaded.reader
    [passage_] = engine.encode([text])
    with writes(words[1]):
        [answer] = reader.run(QUERY, [Document(content=text)], kept_share=1.0)["answers"]
        [[plain]] = engine.write([QUERY], [passage_])
    [spans] = engine.read([QUERY], [passage_], spans_per_window=10_000, kept_share=1.0)
    offsets = engine.token_cache.offsets(text)
    scores = {
        text[offsets[a, 0] : offsets[b, 1]]: score
        for a, b, score in zip(spans.start, spans.end, spans.score, strict=True)
    }
    assert answer.data == max(words, key=lambda word: scores[word])
    assert (plain.text, plain.citation) == ("\ufffd", None)  # without the texts


@hypothesis.given(st.lists(ODD_TEXT, min_size=1, max_size=3), st.data())
@hypothesis.settings(
    deadline=None, max_examples=100, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
def test_what_is_written_stands_there_or_is_flagged(writes, reader, texts, data):
    texts = [clean(text) for text in texts]
    documents = [Document(content=text) for text in texts]
    text = data.draw(st.sampled_from(texts))
    start = data.draw(st.integers(0, len(text)))
    said = data.draw(st.one_of(st.just(text[start : data.draw(st.integers(start, len(text)))]), ODD_TEXT))
    with writes(clean(said)):
        answers = reader.run(QUERY, documents)["answers"]
    for answer in answers:
        place = answer.meta["citation"]
        if place is not None:
            [content] = {one.content for one in documents if one.id == place["document"]}
            borders = {0, *(match.end() for match in regex.finditer(r"\X", content))}
            assert answer.data == content[place["start"] : place["end"]] != ""
            assert {place["start"], place["end"]} <= borders
