# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: S301
"""Used readers and stores that go to other processes."""

import logging
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor

import cloudpickle
import pytest
from haystack import Document, Pipeline

from btr_haystack.errors import NoStoreError, StoreError
from btr_haystack.fingerprint import Fingerprint
from btr_haystack.stores import open_store
from haystack_integrations.components.readers.btr import BinaryTokenStore, BTRGenerativeReader, BTRReader

QUERY = "What is the capital of Norway?"
MODEL = Fingerprint("ab" * 16, {"model": "tiny", "width": 32})
KEY = b"0123456789abcdef"


def told(out):
    return [answer.data for answer in out["answers"]], out["cache"]


@pytest.fixture(params=[BTRReader, BTRGenerativeReader])
def used(request, split_reader, generative, documents, tmp_path):
    """A reader over a file, and what it answered."""
    model = split_reader() if request.param is BTRReader else generative
    store = BinaryTokenStore(model, url=f"sqlite:///{tmp_path}/store.db", progress_bar=False)
    reader = request.param(token_store=store)
    reader.run(QUERY, documents)
    yield reader, told(reader.run(QUERY, documents))
    reader.close()


@pytest.mark.parametrize("module", [pickle, cloudpickle])
def test_a_used_reader(used, documents, module):
    reader, answers = used
    pickled = module.dumps(reader)
    assert len(pickled) < 10_000  # neither weights nor passages
    again = pickle.loads(pickled)
    assert again.to_dict() == reader.to_dict()
    assert told(again.run(QUERY, documents)) == told(reader.run(QUERY, documents)) == answers
    again.close()


@pytest.mark.parametrize("module", [pickle, cloudpickle])
def test_a_pipeline_of_used_components(split_reader, documents, tmp_path, module):
    store = BinaryTokenStore(split_reader(), url=f"sqlite:///{tmp_path}/store.db", progress_bar=False)
    pipeline = Pipeline()
    pipeline.add_component("store", store)
    pipeline.add_component("reader", BTRReader(token_store=store))
    pipeline.connect("store.documents", "reader.documents")
    given = {"store": {"documents": documents}, "reader": {"query": QUERY}}
    answers = told(pipeline.run(given)["reader"])
    again = pickle.loads(module.dumps(pipeline))
    assert again.get_component("reader").token_store is again.get_component("store")
    assert told(again.run(given)["reader"]) == answers
    for one in (pipeline, again):
        one.get_component("reader").close()


def test_used_components_in_a_spawned_worker(split_reader, documents, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = BinaryTokenStore(split_reader(), url="sqlite:///store.db", progress_bar=False)
    store.write_documents(documents)
    reader = BTRReader(token_store=store)
    answers = told(reader.run(QUERY, documents))
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert told(pool.submit(reader.run, QUERY, documents).result()) == answers
        new = [*documents, Document(content="Another passage.")]
        assert pool.submit(store.write_documents, new).result() == 1
        assert store.count_documents() == len(new)
    reader.close()


def test_a_relative_url_names_the_same_file_from_elsewhere(split_reader, documents, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with BinaryTokenStore(split_reader(), url="sqlite:///store.db", progress_bar=False) as store:
        store.write_documents(documents)
        pickled = pickle.dumps(store)
        assert pickle.loads(pickled).url == store.url
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        with pickle.loads(pickled) as again:
            assert again.url == f"sqlite:///{tmp_path}/store.db"
            assert again.count_documents() == len(documents)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_store_in_memory_goes_along_and_says_so_once(split_reader, documents, caplog):
    store = BinaryTokenStore(split_reader(), url="memory://", progress_bar=False)
    reader = BTRReader(token_store=store)
    with caplog.at_level(logging.WARNING):
        pickle.dumps(reader)
        assert "memory://" not in caplog.text  # nothing is held yet
        reader.run(QUERY, documents)
        for _ in range(3):
            again = pickle.loads(pickle.dumps(reader))
    assert caplog.text.count(f"The {len(documents)} passages of a memory:// store go with each copy") == 1
    assert again.run(QUERY, documents)["cache"] == {"hits": len(documents), "misses": 0}
    again.token_store.delete_documents(documents[:1])
    assert store.count_documents() == len(documents)


def test_what_a_reader_without_a_store_has_kept_stays_behind(split_reader, documents):
    reader = BTRReader(split_reader())
    answers = reader.run(QUERY, documents)["answers"]
    out = pickle.loads(pickle.dumps(reader)).run(QUERY, documents)
    assert [answer.data for answer in out["answers"]] == [answer.data for answer in answers]
    assert out["cache"] == {"hits": 0, "misses": len(documents)}


@pytest.mark.parametrize("module", [pickle, cloudpickle])
@pytest.mark.parametrize("name", ["memory", "sqlite"])
def test_open_and_closed_stores(tmp_path, module, name):
    url = {"memory": "memory://", "sqlite": f"sqlite:///{tmp_path}/store.db"}[name]
    with open_store(url, MODEL) as store:
        store.put_many([(KEY, b"record")])
        with pickle.loads(module.dumps(store)) as again:
            assert again.get_many([KEY]) == [b"record"]
            assert again.fingerprint == MODEL
            again.put_many([(KEY[::-1], b"other")])
        assert len(store) == (2 if name == "sqlite" else 1)
    with pytest.raises(StoreError, match="is closed"):
        len(pickle.loads(module.dumps(store)))


def test_an_open_store_whose_file_is_gone_is_not_made_anew(tmp_path):
    with open_store(f"sqlite:///{tmp_path}/store.db", MODEL) as store:
        pickled = pickle.dumps(store)
    (tmp_path / "store.db").unlink()
    with pytest.raises(NoStoreError, match=r"no store in .*store\.db, where this one was when it was copied"):
        pickle.loads(pickled)
    assert list(tmp_path.iterdir()) == []
