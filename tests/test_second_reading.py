# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""The best documents of a first reading, read again by an ordinary reader."""

import copy
import math

import pytest
from conftest import passage
from haystack import Document, Pipeline

from btr_haystack.errors import ModelError
from haystack_integrations.components.readers.btr import BinaryTokenStore, BTRReader, _reading, btr_reader
from haystack_integrations.components.readers.btr._model import load_reader

QUERY = "What is the capital of Norway?"


@pytest.fixture
def documents():
    return [Document(content=passage(number), score=number / 2) for number in range(8)]


@pytest.fixture
def first(split_reader):
    return BTRReader(split_reader(), top_k=50, overlap_threshold=None)


@pytest.fixture
def second(plain_reader):
    return BTRReader(plain_reader("roberta"), top_k=5)


@pytest.fixture
def reader(split_reader, plain_reader):
    return BTRReader(split_reader(), top_k=5, second_model=plain_reader("roberta"))


def logit(probability):
    return math.log(probability / (1 - probability))


def told(answers):
    return [(answer.data, answer.document and answer.document.id, answer.score) for answer in answers]


def best_of(first, documents, count, **parameters):
    """The documents of the first answers."""
    answers = first.run(QUERY, documents, no_answer=False, **parameters)["answers"]
    best = list(dict.fromkeys(answer.document.id for answer in answers))[:count]
    return [next(document for document in documents if document.id == one) for one in best]


@pytest.mark.parametrize("weight", [0.0, 5.0])
def test_answers_are_the_second_readers_of_the_best_documents(weight, reader, first, second, documents):
    for count in (None, 1, 3):
        out = reader.run(QUERY, documents, second_read=count, retrieval_weight=weight)
        best = best_of(first, documents, count or 2, retrieval_weight=weight)
        assert len(best) == (count or 2)
        assert told(out["answers"]) == told(second.run(QUERY, best, retrieval_weight=weight)["answers"])
    assert out["cache"] == {"hits": 8, "misses": 0}
    assert told(reader.read_batch([QUERY], documents, second_read=3, retrieval_weight=weight)[0]) == told(
        out["answers"]
    )


def test_nothing_and_everything_read_again(reader, first, second, documents):
    assert told(reader.run(QUERY, documents, second_read=0)["answers"]) == told(
        first.run(QUERY, documents, top_k=5, overlap_threshold=0.01)["answers"]
    )
    every = told(second.run(QUERY, documents)["answers"])
    again = told(reader.run(QUERY, documents, second_read=100)["answers"])
    assert [one[:2] for one in again] == [one[:2] for one in every]
    assert [one[2] for one in again] == pytest.approx([one[2] for one in every], abs=1e-4)


def test_a_document_is_read_again_once_however_often_it_is_there(reader, documents):
    reader.run(QUERY, documents)
    texts = []
    read_jointly = reader._loaded.second.read_jointly
    reader._loaded.second.changed = lambda **_: reader._loaded.second
    reader._loaded.second.read_jointly = lambda query, given, **limits: (
        texts.append(given) or read_jointly(query, given, **limits)
    )
    reader.run(QUERY, documents, second_read=3)
    assert [len(given) for given in texts] == [3]


def test_what_was_pruned_comes_last_by_the_retriever(split_reader, plain_reader, documents):
    reader = BTRReader(split_reader(k=1), second_model=plain_reader("roberta"))

    def read(count):
        answers = reader.run(QUERY, documents, kept_share=0.1, second_read=count, top_k=200, overlap_threshold=None)
        return {one.document.id for one in answers["answers"] if one.document}

    [best] = read(1)
    others = [one.id for one in reversed(documents) if one.id != best]
    for count in (2, 3, 6):
        assert read(count) == {best, *others[: count - 1]}


def test_the_retrievers_best_counts_even_where_it_is_not_read_again(reader):
    documents = [Document(content=passage(number), score=1.0) for number in range(8)]
    documents.append(Document(content=" ", score=11.0))
    plain, less = (
        reader.run(QUERY, documents, top_k=1, no_answer=False, second_read=1, retrieval_weight=weight)["answers"][0]
        for weight in (0.0, 0.5)
    )
    assert (plain.data, plain.document) == (less.data, less.document)
    assert logit(plain.score) - logit(less.score) == pytest.approx(0.1 * 0.5 * 10, abs=1e-3)


def test_odd_documents(reader):
    nothing = [Document(content=None), Document(content=""), Document(content=" \n")]
    for given in ([], nothing[:2], nothing):
        assert not any(answer.data for answer in reader.run(QUERY, given)["answers"])
    one = reader.run("", [*nothing, Document(content=passage(3) * 30)])["answers"]
    assert one[0].document.content.startswith(passage(3))


def test_a_saved_pipeline_reads_again(split_reader, plain_reader, documents, tmp_path):
    url = f"sqlite:///{tmp_path}/store.db"
    store = BinaryTokenStore(split_reader(), url=url, progress_bar=False)
    reader = BTRReader(token_store=store, second_model=plain_reader("bert"), second_read=3, top_k=3)
    pipeline = Pipeline()
    pipeline.add_component("reader", reader)
    loaded = Pipeline.loads(pipeline.dumps())
    given = {"reader": {"query": QUERY, "documents": documents}}
    assert told(loaded.run(given)["reader"]["answers"]) == told(pipeline.run(given)["reader"]["answers"])
    assert (loaded.get_component("reader").second_model, loaded.get_component("reader").second_read) == (
        str(plain_reader("bert")),
        3,
    )
    reader.close()
    assert reader._loaded is None
    assert told(reader.run(QUERY, documents)["answers"]) == told(loaded.run(given)["reader"]["answers"])


def test_a_warm_reader_can_be_copied(split_reader, plain_reader, documents, tmp_path):
    store = BinaryTokenStore(split_reader(), url=f"sqlite:///{tmp_path}/store.db", progress_bar=False)
    reader = BTRReader(token_store=store, second_model=plain_reader("bert"))
    answers = told(reader.run(QUERY, documents)["answers"])
    other = copy.deepcopy(reader)
    reader.close()
    out = other.run(QUERY, documents)
    assert (told(out["answers"]), out["cache"]) == (answers, {"hits": 8, "misses": 0})
    other.close()


def test_refusals(split_reader, plain_reader, documents):
    reader = BTRReader(split_reader(), second_model=split_reader("t5"))
    with pytest.raises(ModelError, match=r"second_model is .*reads split \(k = 2\); expected an ordinary"):
        reader.warm_up()
    for value, error in ((-1, ValueError), (1.5, TypeError), (True, TypeError)):
        with pytest.raises(error, match=f"second_read is {value}; expected "):
            BTRReader("a/model", second_read=value)
        with pytest.raises(error, match=f"second_read is {value}; expected "):
            BTRReader(split_reader()).run(QUERY, documents, second_read=value)
    alone = BTRReader(split_reader(), second_read=5)
    one, other = (alone.run(QUERY, documents, **given)["answers"] for given in ({"second_read": 0}, {}))
    assert one == other  # without a second model: nothing
    with pytest.raises(ValueError, match="second_read is 3, but there is no second_model to read again"):
        alone.run(QUERY, documents, second_read=3)


def test_a_revision_is_the_first_model_s(split_reader, plain_reader, documents, monkeypatch):
    given = {}

    def load(kind, model, *, model_kwargs, **settings):
        given[model] = model_kwargs
        return load_reader(kind, model, model_kwargs={}, **settings)

    monkeypatch.setattr(_reading, "load_reader", load)
    monkeypatch.setattr(btr_reader, "load_reader", load)
    arguments = {"revision": "v2", "subfolder": "a", "dtype": "float32"}
    first, second = str(split_reader()), str(plain_reader("bert"))
    BTRReader(first, second_model=second, model_kwargs=arguments).run(QUERY, documents)
    assert given == {first: arguments, second: {"dtype": "float32"}}
