# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""BTRGenerativeReader as a Haystack user meets it."""

import asyncio
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
from conftest import passage
from haystack import Document, GeneratedAnswer, Pipeline
from haystack.components.joiners import AnswerJoiner
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.utils import ComponentDevice
from transformers import GenerationConfig

from btr_haystack import Compression, GenerativeReader
from btr_haystack.errors import FingerprintError, ModelError
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
    assert answer.meta == {"score": pytest.approx(same.score, abs=1e-4), "hits": 5, "misses": 3}
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
