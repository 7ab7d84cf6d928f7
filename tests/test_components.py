# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""The components as a Haystack user meets them."""

import asyncio
import logging
import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import passage, shipped
from haystack import Document, Pipeline
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.document_stores.types import DuplicatePolicy
from haystack.utils import ComponentDevice, Secret
from hypothesis import given
from hypothesis import strategies as st

from btr_haystack import SplitReader, default_model_path
from btr_haystack.errors import FingerprintError, ModelError, NoStoreError, StoreError
from btr_haystack.limits import Limits
from btr_haystack.record import passage_key
from btr_haystack.stores import open_store
from btr_haystack.tokens import TokenCache
from haystack_integrations.components.readers.btr import (
    BinaryTokenStore,
    BTRReader,
    _model,
    _reading,
    binary_token_store,
)
from haystack_integrations.components.readers.btr._answers import rank_prior
from haystack_integrations.components.readers.btr._read_through import ReadThrough

QUERY = "What is the capital of Norway?"
ROOT = Path(__file__).parent.parent


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/store.db"


@pytest.fixture
def store(split_reader, url):
    with BinaryTokenStore(split_reader(), url=url, batch_size=4, progress_bar=False) as opened:
        yield opened


@pytest.fixture
def reader(store):
    return BTRReader(token_store=store, top_k=5)


def _alone(store):
    pipeline = Pipeline()
    pipeline.add_component("store", store)
    return pipeline


def told(answers):
    return [(answer.data, answer.document and answer.document.id, answer.score) for answer in answers]


class TestBinaryTokenStore:
    def test_run_passes_documents_on_and_tells_how_many_are_new(self, store, documents):
        out = store.run(documents=documents)
        assert out["documents"] is documents
        assert out["documents_written"] == store.count_documents() == len(documents)
        assert store.run(documents=[*documents, Document(content="A new one.")])["documents_written"] == 1

    def test_a_passage_is_known_by_its_text(self, store, documents):
        twin = Document(content=documents[0].content, meta={"page": 2})
        assert twin.id != documents[0].id
        assert store.run([documents[0], twin])["documents_written"] == 1

    def test_documents_without_text_are_passed_on_only(self, store, documents, caplog):
        given = [documents[0], Document(content=None), Document(content="")]
        with caplog.at_level(logging.WARNING):
            out = store.run(given)
        assert out == {"documents": given, "documents_written": 1}
        assert "2 documents have no text" in caplog.text

    def test_policies(self, store, documents):
        assert store.write_documents(documents[:2]) == 2
        assert store.write_documents(documents[:3], DuplicatePolicy.SKIP) == 1
        assert store.write_documents(documents[:3], DuplicatePolicy.OVERWRITE) == 3
        assert store.count_documents() == 3
        with pytest.raises(DuplicateDocumentError, match="1 of 2"):
            store.write_documents(documents[2:4], DuplicatePolicy.FAIL)
        with pytest.raises(DuplicateDocumentError, match="1 of 2"):
            store.write_documents([documents[5], Document(content=documents[5].content)], DuplicatePolicy.FAIL)
        assert store.write_documents(documents[4:6], DuplicatePolicy.FAIL) == 2

    def test_streams_and_goes_on_where_it_stopped(self, store, documents):
        def broken_off():
            yield from documents[:6]
            raise ConnectionError

        with pytest.raises(ConnectionError):
            store.write_documents(broken_off())
        assert store.count_documents() == 4  # one batch, committed
        assert store.write_documents(document for document in documents) == len(documents) - 4

    def test_the_batch_size_does_not_change_what_is_written(self, split_reader, documents, long_document):
        records = []
        for batch_size in (1, 64):
            with BinaryTokenStore(split_reader(), "memory://", batch_size=batch_size, progress_bar=False) as store:
                store.write_documents([*documents, long_document])
                held = store.open(store.reader.fingerprint)
                records.append({key: held.get_many([key]) for key in held.keys()})
        assert records[0] == records[1]

    def test_delete_compact_report(self, store, documents):
        store.write_documents(documents)
        assert store.delete_documents([*documents[:3], documents[0], Document(content="unknown")]) == 3
        assert store.count_documents() == len(documents) - 3
        store.compact()
        report = store.report()
        assert report.passages == len(documents) - 3
        assert report.float32_bytes_per_token == 128
        with pytest.raises(TypeError, match="not str"):
            store.delete_documents([documents[3].id])

    def test_keep_only_what_the_corpus_has(self, store, documents):
        store.write_documents(documents)
        current = [*documents[2:], documents[2], Document(content=None), Document(content=""), Document(content="new")]
        assert store.keep_only(document for document in current) == 2
        assert store.count_documents() == len(documents) - 2
        assert sorted(store.keys()) == sorted(passage_key(document.content) for document in documents[2:])
        assert store.keep_only(tuple(current)) == 0
        assert store.delete_many([passage_key(documents[2].content), passage_key("new")]) == 1
        assert store.write_documents(documents) == 3
        assert store.keep_only([]) == len(documents)

    def test_keep_only_changes_nothing_where_it_fails(self, store, documents):
        def broken_off():
            yield from documents[:6]
            raise ConnectionError

        store.write_documents(documents)
        with pytest.raises(ConnectionError):
            store.keep_only(broken_off())
        for bad, error in (
            (documents[0], "not a single one"),
            ("text", "not str"),
            (None, "not NoneType"),
            ([documents[0], "text"], "not str"),
            ({"id": documents[0]}, "not str"),
        ):
            with pytest.raises(TypeError, match=error):
                store.keep_only(bad)
        with pytest.raises(StoreError, match="16 bytes"):
            store.delete_many([passage_key(documents[0].content), documents[0].id])
        assert store.count_documents() == len(documents)

    def test_keep_only_gives_space_back(self, store, documents, url):
        file = Path(url.removeprefix("sqlite:///"))
        store.write_documents(Document(content=f"{number} {documents[0].content}") for number in range(200))
        store.write_documents(documents)
        full = store.report().file_bytes
        assert store.keep_only(documents) == 200
        store.compact()
        assert file.stat().st_size < full / 4

    def test_an_existing_store_is_managed_without_the_model(self, store, documents, monkeypatch):
        store.write_documents(documents)
        store.close()
        monkeypatch.setattr(BinaryTokenStore, "_load", lambda self: pytest.fail("the model was loaded"))
        assert store.count_documents() == len(documents)
        assert store.delete_documents(documents[:1]) == 1
        assert store.keep_only(documents[2:]) == 1
        assert store.report().passages == len(list(store.keys())) == len(documents) - 2

    def test_a_damaged_store_is_told_of_without_the_model(self, store, documents, url, monkeypatch):
        Path(url.removeprefix("sqlite:///")).write_bytes(b"no database " * 99)
        monkeypatch.setattr(BinaryTokenStore, "_load", lambda self: pytest.fail("the model was loaded"))
        with pytest.raises(StoreError, match=r"store\.db"):
            store.count_documents()

    @pytest.mark.parametrize("bits", [0, 5, 96])
    def test_any_number_of_bits(self, split_reader, documents, tmp_path, bits):
        """None at all, and more than the model is wide."""
        folder = split_reader("bert", k=2, bits=bits)
        pipeline = Pipeline()
        store = BinaryTokenStore(folder, f"sqlite:///{tmp_path}/{bits}.db", progress_bar=False)
        pipeline.add_component("reader", BTRReader(token_store=store, top_k=3))
        store.write_documents(documents)
        out = Pipeline.loads(pipeline.dumps()).run({"reader": {"query": QUERY, "documents": documents}})["reader"]
        assert out["cache"] == {"hits": 8, "misses": 0}
        assert told(out["answers"]) == told(BTRReader(folder, top_k=3).run(QUERY, documents)["answers"])

    def test_cut_to_fewer_bits(self, split_reader, documents, long_document, tmp_path, monkeypatch):
        folder, mixed = split_reader("bert", k=1, bits=24), [*documents, long_document]
        whole, short, anew = (
            BinaryTokenStore(folder, f"sqlite:///{tmp_path}/{name}.db", bits=bits, progress_bar=False, batch_size=4)
            for name, bits in (("whole", None), ("short", 12), ("anew", 12))
        )
        assert Pipeline.loads(_alone(short).dumps()).get_component("store").bits == 12
        whole.write_documents(mixed)
        anew.write_documents(mixed)
        with monkeypatch.context() as patched:
            patched.setattr(SplitReader, "encode", lambda *_, **__: pytest.fail("something was encoded"))
            assert short.copy_from(whole) == len(mixed)
            assert short.copy_from(whole) == 0
        answers = [told(BTRReader(token_store=store, top_k=5).run(QUERY, mixed)["answers"]) for store in (short, anew)]
        assert answers[0] == answers[1]
        assert short.report().file_bytes <= whole.report().file_bytes
        with pytest.raises(ValueError, match=r"12 bits a token and .* has 24; bits cannot be added"):
            whole.copy_from(short)
        with pytest.raises(TypeError, match=r"other is 'store\.db'; expected a BinaryTokenStore"):
            whole.copy_from("store.db")
        other = BinaryTokenStore(split_reader("roberta"), f"sqlite:///{tmp_path}/other.db", progress_bar=False)
        other.write_documents(documents)
        with pytest.raises(FingerprintError, match="cannot be cut to"):
            short.copy_from(other)
        with pytest.raises(ValueError, match="bits is -1; expected 0 or more"):
            BinaryTokenStore(folder, bits=-1)
        with pytest.raises(ValueError, match="bits is 25; expected 0 to 24"):
            BinaryTokenStore(folder, "memory://", bits=25).warm_up()

    def test_token_ids_are_kept_or_had_from_the_text(self, split_reader, documents, long_document, tmp_path):
        folder, mixed, found = split_reader("bert", k=1), [*documents, long_document], {}
        for keep in (False, True):
            url = f"sqlite:///{tmp_path}/{keep}.db"
            store = BinaryTokenStore(folder, url, keep_ids=keep, progress_bar=False)
            assert store.run(mixed)["documents_written"] == len(mixed)
            assert store.run(mixed)["documents_written"] == 0
            out = BTRReader(token_store=store, top_k=5).run(QUERY, mixed)
            assert out["cache"] == {"hits": len(mixed), "misses": 0}
            found[keep] = (told(out["answers"]), store.report())
        (answers, without), (expected, kept) = found[False], found[True]
        assert answers == expected
        assert without.tokens == kept.tokens
        assert without.id_bytes == 4 * len(mixed) < 2 * kept.tokens == kept.id_bytes
        mixed_store = BinaryTokenStore(folder, f"sqlite:///{tmp_path}/True.db", progress_bar=False)
        mixed_store.write_documents([Document(content=passage(99))])
        out = BTRReader(token_store=mixed_store, top_k=5).run(QUERY, [*mixed, Document(content=passage(99))])
        assert out["cache"]["misses"] == 0

    def test_codes_for_a_share_of_the_tokens(self, split_reader, documents, long_document, tmp_path):
        folder, mixed = split_reader("bert", k=1, bits=24), [*documents, long_document]
        stores = {
            share: BinaryTokenStore(folder, f"sqlite:///{tmp_path}/{share}.db", coded_share=share, progress_bar=False)
            for share in (0, 0.5, 1.0)
        }
        sizes = []
        for share, store in stores.items():
            assert Pipeline.loads(_alone(store).dumps()).get_component("store").coded_share == share
            reader = BTRReader(token_store=store, top_k=5)
            missed = reader.run(QUERY, mixed)
            again = reader.run(QUERY, mixed)
            assert (missed["cache"]["hits"], again["cache"]["misses"]) == (0, 0)
            assert told(missed["answers"]) == told(again["answers"])
            report = store.report()
            sizes.append(report.code_bytes)
            assert report.tokens * share <= report.tokens_with_codes <= report.tokens * share + len(mixed) * 4
        assert sizes == sorted(set(sizes))
        with pytest.raises(FingerprintError, match="cannot be cut to"):
            stores[0.5].copy_from(stores[1.0])
        for share, error in ((1.5, ValueError), (-1, ValueError), ("half", TypeError)):
            with pytest.raises(error, match=f"coded_share is {share!r}; expected"):
                BinaryTokenStore(folder, coded_share=share)

    def test_a_store_that_is_not_there_is_not_made_by_looking(self, tmp_path, documents, monkeypatch):
        monkeypatch.setattr(BinaryTokenStore, "_load", None)
        store = BinaryTokenStore(None, f"sqlite:///{tmp_path}/mistyped.db")
        assert store.model_name_or_path == "btr-flan-t5-small-squad"
        assert (store.count_documents(), store.delete_documents(documents)) == (0, 0)
        assert (store.keep_only(documents), store.delete_many([]), list(store.keys())) == (0, 0, [])
        store.compact()
        with pytest.raises(NoStoreError, match=r"mistyped\.db: there is no store to copy from"):
            BinaryTokenStore(url=f"sqlite:///{tmp_path}/other.db").copy_from(store)
        assert not list(tmp_path.iterdir())
        with pytest.raises(TypeError, match="keep_ids is 'no'"):
            BinaryTokenStore(keep_ids="no")

    def test_a_store_that_is_not_there_yet_is_empty(self, store):
        assert store.count_documents() == 0

    def test_closed_and_used_again(self, store, documents):
        store.write_documents(documents)
        store.close()
        store.close()
        assert store.run(documents)["documents_written"] == 0

    def test_progress_bar(self, split_reader, documents, capsys):
        for shown in (True, False):
            with BinaryTokenStore(split_reader(), "memory://", progress_bar=shown) as store:
                store.run(documents)
            assert ("Encoding passages" in capsys.readouterr().err) is shown

    def test_a_joint_model_has_nothing_to_keep(self, plain_reader, url):
        with pytest.raises(ModelError, match="jointly"):
            BinaryTokenStore(plain_reader("bert"), url=url).warm_up()
        assert not Path(url.removeprefix("sqlite:///")).exists()

    def test_refuses_the_store_of_another_model(self, store, split_reader, url, documents):
        store.write_documents(documents)
        other = BinaryTokenStore(split_reader("bert", k=1), url=url)
        with pytest.raises(FingerprintError, match=r"tiny-bert-k2-16bits .* tiny-bert-k1-16bits"):
            other.warm_up()
        assert other.count_documents() == len(documents)  # opened without a model, but still of no use to this one
        with pytest.raises(FingerprintError, match=r"tiny-bert-k2-16bits .* tiny-bert-k1-16bits"):
            other.warm_up()

    @pytest.mark.parametrize(
        "settings", [{"batch_size": 0}, {"max_seq_length": 0}, {"stride": -1}, {"max_seq_length": 64, "stride": 64}]
    )
    def test_settings_that_cannot_be(self, settings):
        with pytest.raises(ValueError, match=next(reversed(settings))):
            BinaryTokenStore(**settings)

    def test_windows_that_the_model_cannot_have(self, split_reader):
        store = BinaryTokenStore(split_reader(), "memory://", max_seq_length=60, stride=50)
        with pytest.raises(ValueError, match="leaves windows of 35 tokens"):
            store.warm_up()

    @pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
    def test_a_killed_writer_loses_one_batch_at_most(self, store, split_reader, url, tmp_path):
        script = f"""
            import itertools
            from conftest import passage
            from haystack import Document
            from haystack_integrations.components.readers.btr import BinaryTokenStore
            store = BinaryTokenStore({str(split_reader())!r}, {url!r}, batch_size=4, progress_bar=False)
            store.write_documents(Document(content=passage(number)) for number in itertools.count())
        """
        writer = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], env=environment(), cwd=tmp_path)
        file = Path(url.removeprefix("sqlite:///"))
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and writer.poll() is None:
            if file.exists() and file.stat().st_size > 0 and store.count_documents() >= 8:
                break
            time.sleep(0.02)
        writer.send_signal(signal.SIGKILL)
        assert writer.wait() == -signal.SIGKILL
        count = store.count_documents()
        assert count >= 8
        assert count % 4 == 0
        more = [Document(content=passage(number)) for number in range(count + 3)]
        assert store.write_documents(more) == 3
        assert store.report().passages == count + 3


class TestBTRReader:
    def test_first_from_the_model_then_from_the_store(self, store, reader, documents, caplog):
        store.write_documents(documents[:3])
        with caplog.at_level(logging.INFO):
            first = reader.run(QUERY, documents)
        assert first["cache"] == {"hits": 3, "misses": 5}
        assert "3 documents came from the store, 5 did not" in caplog.text
        second = reader.run(QUERY, documents)
        assert second["cache"] == {"hits": 8, "misses": 0}
        assert first["answers"] == second["answers"]
        assert len(first["answers"]) == 6

    def test_without_a_store_it_keeps_passages_in_memory(self, reader, split_reader, documents):
        alone = BTRReader(split_reader(), top_k=5)
        assert alone.run(QUERY, documents)["cache"] == {"hits": 0, "misses": 8}
        assert alone.run(QUERY, documents)["cache"] == {"hits": 8, "misses": 0}
        assert told(alone.run(QUERY, documents)["answers"]) == told(reader.run(QUERY, documents)["answers"])

    @pytest.mark.parametrize("family", ["bert", "roberta", "electra", "distilbert", "mpnet", "t5"])
    def test_every_family_reads_the_same_from_the_store(self, family, split_reader, documents, long_document):
        reader = BTRReader(split_reader(family))
        mixed = [*documents, long_document]
        encoded, stored = reader.run(QUERY, mixed), reader.run(QUERY, mixed)
        assert stored["cache"] == {"hits": 9, "misses": 0}
        assert encoded["answers"] == stored["answers"]
        for answer in stored["answers"][:-1]:
            span = answer.document_offset
            assert answer.data == answer.document.content[span.start : span.end]

    def test_memory_of_its_own_is_bounded(self, split_reader):
        reader = BTRReader(split_reader())
        reader.warm_up()
        store = open_store("memory://", reader._loaded.reader.fingerprint)
        passages = ReadThrough(reader._loaded.reader, lambda: store, most=20_000)
        for number in range(60):
            passages.fetch([passage(number)])
            assert store.file_bytes() + (256 - 16) * len(store) <= 20_000
        assert 10 < len(store) < 60
        newest, hits = passages.fetch([passage(number) for number in range(50, 60)])
        assert (len(newest), hits) == (10, 10)

    def test_shares_the_model_of_its_store(self, store, reader):
        reader.warm_up()
        assert reader._loaded.reader is store.reader
        half = BTRReader(token_store=store, model_kwargs={"dtype": torch.bfloat16})
        half.warm_up()
        assert half._loaded.reader is not store.reader
        assert half._loaded.reader.model.dtype == torch.bfloat16

    def test_settings_of_its_store_are_its_own(self, split_reader, url):
        cpu = ComponentDevice.from_str("cpu")
        store = BinaryTokenStore(split_reader(), url, device=cpu, model_kwargs={"dtype": "float32"})
        reader = BTRReader(token_store=store)
        assert reader.model_name_or_path == str(split_reader())
        assert (reader.device, reader.model_kwargs) == (cpu, {"dtype": "float32"})

    def test_windows_must_be_those_of_the_store(self, store):
        with pytest.raises(ValueError, match=r"max_seq_length = 256 and stride = 64, its token store 384 and 128"):
            BTRReader(token_store=store, max_seq_length=256, stride=64)

    def test_other_windows_for_one_run(self, store, reader, split_reader, long_document, caplog):
        expected = BTRReader(split_reader(), top_k=5, max_seq_length=128, stride=32).run(QUERY, [long_document])
        store.write_documents([long_document])
        with caplog.at_level(logging.WARNING):
            out = reader.run(QUERY, [long_document, Document(content="Short.")], max_seq_length=128, stride=32)
        assert "encoded anew" in caplog.text
        assert out["cache"] == {"hits": 0, "misses": 2}
        assert store.count_documents() == 1
        assert reader.run(QUERY, [long_document], max_seq_length=128, stride=32)["answers"] == expected["answers"]
        assert reader.run(QUERY, [long_document])["cache"]["hits"] == 1

    def test_store_of_another_model(self, store, split_reader, documents):
        store.write_documents(documents)
        reader = BTRReader(split_reader("bert", k=1), token_store=store)
        with pytest.raises(FingerprintError, match=r"tiny-bert-k2-16bits .* tiny-bert-k1-16bits"):
            reader.warm_up()

    @pytest.mark.parametrize("damage", ["flipped", "short", "empty", "newer"])
    def test_damaged_record_is_encoded_again(self, store, reader, documents, damage, caplog):
        store.write_documents(documents)
        expected = reader.run(QUERY, documents)["answers"]
        key, held = passage_key(documents[2].content), store.open(store.reader.fingerprint)
        record = bytearray(held.get_many([key])[0])
        if damage == "flipped":
            record[len(record) // 2] ^= 4
        elif damage == "newer":
            record[2] += 1
        held.put_many([(key, bytes(record[: {"short": -3, "empty": 0}.get(damage, len(record))]))])
        with caplog.at_level(logging.WARNING):
            out = reader.run(QUERY, documents)
        assert f"{key.hex()} counts as missing" in caplog.text
        assert out == {"answers": expected, "cache": {"hits": 7, "misses": 1}}
        assert reader.run(QUERY, documents) == {"answers": expected, "cache": {"hits": 8, "misses": 0}}

    @pytest.mark.parametrize("keep_ids", [False, True])
    def test_a_sound_record_of_another_text(self, split_reader, documents, tmp_path, caplog, keep_ids):
        """As another release of a tokenizer would leave it, or somebody who mixes up keys."""
        store = BinaryTokenStore(
            split_reader("bert"), f"sqlite:///{tmp_path}/s.db", keep_ids=keep_ids, progress_bar=False
        )
        reader = BTRReader(token_store=store, top_k=5)
        store.write_documents(documents)
        expected = reader.run(QUERY, documents)["answers"]
        held = store.open(store.reader.fingerprint)
        keys = [passage_key(document.content) for document in documents[:2]]
        [first, second] = held.get_many(keys)
        for mend in (lambda: reader.run(QUERY, documents)["cache"]["misses"], lambda: store.write_documents(documents)):
            held.put_many([(keys[1], first)])
            caplog.clear()
            assert mend() == 1
            assert "tokens that are not the" in caplog.text
            assert held.get_many(keys) == [first, second]
            assert reader.run(QUERY, documents)["answers"] == expected

    def test_indexing_again_repairs_as_well(self, store, documents):
        store.write_documents(documents)
        held = store.open(store.reader.fingerprint)
        held.put_many([(passage_key(documents[2].content), b"nonsense")])
        assert store.write_documents(documents) == 1

    def test_store_that_cannot_be_written(self, store, reader, documents, monkeypatch, caplog):
        expected = BTRReader(store.model_name_or_path, top_k=5).run(QUERY, documents)["answers"]
        store.write_documents(documents[:3])

        def refuse(items, wait):
            msg = "The disk is full."
            raise StoreError(msg)

        monkeypatch.setattr(store.open(store.reader.fingerprint), "put_many", refuse)
        with caplog.at_level(logging.WARNING):
            for _ in range(2):
                assert reader.run(QUERY, documents) == {"answers": expected, "cache": {"hits": 3, "misses": 5}}
        assert caplog.text.count("The disk is full.") == 1

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes everywhere")
    def test_read_only_store(self, store, split_reader, documents, url):
        store.write_documents(documents[:3])
        store.close()
        file = Path(url.removeprefix("sqlite:///"))
        file.chmod(0o400)
        file.parent.chmod(0o500)
        reader = BTRReader(token_store=BinaryTokenStore(split_reader(), url=url))
        assert reader.run(QUERY, documents)["cache"] == {"hits": 3, "misses": 5}

    def test_threads_load_once(self, split_reader, documents, url, monkeypatch):
        loads, load = [], _reading.load_reader
        for module in (_reading, binary_token_store):
            monkeypatch.setattr(module, "load_reader", lambda *a, **k: loads.append(time.sleep(0.1)) or load(*a, **k))
        for store in (None, BinaryTokenStore(split_reader(), url, progress_bar=False)):
            reader = BTRReader(None if store else split_reader(), token_store=store)
            loads.clear()
            with ThreadPoolExecutor(4) as threads:
                outs = list(threads.map(lambda n, r=reader: r.run(QUERY, documents[n : n + 5]), range(4)))
            assert len(loads) == 1
            assert all(out["answers"] for out in outs)
            assert reader.run(QUERY, documents)["cache"] == {"hits": 8, "misses": 0}

    def test_many_questions_over_shared_passages(self, reader, documents, long_document):
        queries = [QUERY, "Who wrote letters from Cairo?", "", QUERY]
        mixed = [*documents, long_document]
        together = reader.read_batch(queries, mixed, top_k=3)
        assert [told(answers) for answers in together] == [
            told(reader.run(query, mixed, top_k=3)["answers"]) for query in queries
        ]
        assert [answers[0].query for answers in together] == queries
        assert reader.read_batch([], mixed) == []
        with pytest.raises(TypeError, match="a list of queries"):
            reader.read_batch(QUERY, mixed)
        with pytest.raises(TypeError, match="top"):
            reader.read_batch([QUERY], mixed, top=3)

    def test_many_questions_read_jointly(self, plain_reader, documents):
        reader = BTRReader(plain_reader("roberta"))
        together = reader.read_batch([QUERY, "Who?"], documents)
        assert told(together[1]) == told(reader.run("Who?", documents)["answers"])

    def test_joint_model_says_once_that_nothing_is_kept(self, plain_reader, documents, caplog):
        reader = BTRReader(plain_reader("bert"))
        with caplog.at_level(logging.WARNING):
            for _ in range(2):
                assert reader.run(QUERY, documents)["cache"] == {"hits": 0, "misses": 8}
        assert caplog.text.count("nothing is kept") == 1

    def test_joint_model_has_no_use_for_a_store(self, plain_reader, store):
        with pytest.raises(ModelError, match="leave the token store out"):
            BTRReader(plain_reader("bert"), token_store=store).warm_up()

    @pytest.mark.parametrize("joint", [False, True])
    def test_the_retrievers_scores_count_as_much_as_asked(self, joint, reader, plain_reader, documents):
        if joint:
            reader = BTRReader(plain_reader("bert"), top_k=5)
        reader.no_answer = False
        scored = [replace(document, score=float(place)) for place, document in enumerate(documents)]
        alone = reader.run("What of 3?", scored)["answers"]
        assert told(alone) == told(reader.run("What of 3?", documents, retrieval_weight=1)["answers"])  # no scores
        moved = reader.run("What of 3?", scored, top_k=100, overlap_threshold=None, retrieval_weight=0.5)["answers"]
        plain = reader.run("What of 3?", scored, top_k=100, overlap_threshold=None)["answers"]
        before = {(a.document.id, a.document_offset.start, a.document_offset.end): a.score for a in plain}
        for answer in moved[:20]:
            place = (answer.document.id, answer.document_offset.start, answer.document_offset.end)
            if place in before:
                lacking = answer.document.score - scored[-1].score
                logit = math.log(before[place] / (1 - before[place])) + 0.1 * 0.5 * lacking
                assert answer.score == pytest.approx(1 / (1 + math.exp(-logit)), abs=1e-5)
        last = reader.run("What of 3?", scored, top_k=1, retrieval_weight=1000)["answers"][0].document
        assert last.id == documents[-1].id
        odd = [replace(scored[0], score=math.nan), replace(scored[1], score=None), *scored[2:]]
        assert len(reader.run("What of 3?", odd, retrieval_weight=0.5)["answers"]) == 5

    def test_the_retrievers_order_counts_where_windows_are_dropped(self, split_reader):
        reader = BTRReader(split_reader(k=1), no_answer=False, top_k=1)
        scores = [3.0, None, 9.0, math.nan, 3.0, -2.0]
        twins = [Document(id=str(place), content=passage(3), score=score) for place, score in enumerate(scores)]
        [answer] = reader.run("What of 3?", twins, kept_share=0.01)["answers"]
        assert answer.document.id == "2"
        [whole] = reader.run("What of 3?", twins, kept_share=1.0)["answers"]
        assert whole.score == pytest.approx(answer.score, abs=1e-5)
        unscored = [replace(twin, score=None) for twin in twins]
        [answer] = reader.run("What of 3?", unscored, kept_share=0.01)["answers"]
        assert answer.score == pytest.approx(whole.score, abs=1e-5)

    @given(st.lists(st.one_of(st.none(), st.floats(width=16), st.integers(-3, 3)), max_size=12))
    def test_rank_prior(self, scores):
        documents = [Document(content="a", score=score) for score in scores]
        finite = [score if score is not None and math.isfinite(score) else -math.inf for score in scores]
        prior = rank_prior(documents)
        if all(score == -math.inf for score in finite):
            assert prior is None
        else:
            ranks = [1 + sum(other > score for other in finite) for score in finite]
            assert prior.tolist() == pytest.approx([-math.log(rank) for rank in ranks])

    def test_longest_answer(self, reader, documents):
        every = {"answers_per_seq": 10**4, "top_k": 10**6, "overlap_threshold": None, "no_answer": False}
        unbound = BTRReader(token_store=reader.token_store, limits={"answers": 10**6})
        free = unbound.run(QUERY, documents[:1], **every)["answers"]
        assert documents[0].content in {answer.data for answer in free}
        short = reader.run(QUERY, documents, top_k=50, no_answer=False, max_answer_length=2)["answers"]
        assert max(len(answer.data.split()) for answer in short) <= 2
        bound = BTRReader(token_store=reader.token_store, max_answer_length=2)
        assert told(bound.run(QUERY, documents, top_k=50, no_answer=False)["answers"]) == told(short)

    def test_places_tokens_only_in_the_documents_that_win(self, reader, documents, monkeypatch):
        seen = []
        offsets = TokenCache.offsets
        monkeypatch.setattr(TokenCache, "offsets", lambda self, text: seen.append(text) or offsets(self, text))
        answers = reader.run(QUERY, documents, top_k=3, no_answer=False)["answers"]
        assert sorted(seen) == sorted({answer.document.content for answer in answers})

    def test_a_store_in_memory_outlives_one_of_its_readers(self, split_reader, documents):
        store = BinaryTokenStore(split_reader(), "memory://", progress_bar=False)
        one, other = BTRReader(token_store=store), BTRReader(token_store=store)
        one.run(QUERY, documents)
        one.close()
        assert other.run(QUERY, documents)["cache"] == {"hits": 8, "misses": 0}
        store.close()
        assert store.count_documents() == 0

    def test_what_is_no_store_or_no_truth_value(self, reader, documents):
        with pytest.raises(TypeError, match=r"token_store is 'sqlite:///x.db'; expected a BinaryTokenStore"):
            BTRReader(token_store="sqlite:///x.db")  # noqa: S106
        with pytest.raises(TypeError, match="no_answer is 'no'; expected True or False"):
            BTRReader(no_answer="no")
        with pytest.raises(TypeError, match="no_answer is 0; expected True or False"):
            reader.run(QUERY, documents, no_answer=0)
        with pytest.raises(TypeError, match="expected a list of queries, not NoneType"):
            reader.read_batch(None, documents)

    def test_closed_and_used_again(self, reader, documents):
        first = reader.run(QUERY, documents)["answers"]
        reader.close()
        reader.close()
        assert reader._loaded is None
        assert reader.run(QUERY, documents) == {"answers": first, "cache": {"hits": 8, "misses": 0}}

    def test_store_closed_behind_its_back(self, store, reader, documents):
        reader.run(QUERY, documents)
        store.close()
        assert reader.run(QUERY, documents)["cache"] == {"hits": 8, "misses": 0}

    def test_telemetry_names_the_shipped_models_alone(self, reader):
        assert reader._get_telemetry_data() == {"model": "custom"}
        assert reader.token_store._get_telemetry_data() == {"model": "custom"}
        for model in ("our-company/secret-project", "secret", "../secret", "/home/secret/btr-flan-t5-small-squad"):
            for made in (BTRReader(model), BinaryTokenStore(model)):
                assert made._get_telemetry_data() == {"model": "custom"}
        assert BTRReader()._get_telemetry_data() == {"model": "btr-flan-t5-small-squad"}
        assert BinaryTokenStore()._get_telemetry_data() == {"model": "btr-flan-t5-small-squad"}

    def test_nothing_is_loaded_before_warm_up(self):
        store = BinaryTokenStore("nowhere/such-a-model", "sqlite:////nowhere/store.db")
        BTRReader(token_store=store).to_dict()

    def test_token_and_arguments_reach_the_model(self, monkeypatch):
        given = {}
        monkeypatch.setattr(
            _model.SplitReader, "from_pretrained", lambda folder, **kwargs: given.update(kwargs, folder=folder)
        )
        monkeypatch.setenv("HF_API_TOKEN", "secret-token")
        token = Secret.from_env_var(["HF_API_TOKEN", "HF_TOKEN"], strict=False)
        settings = {"token": token, "max_seq_length": 256, "stride": 64, "bits": 8, "coded_share": 0.5}
        settings |= {"merged_share": 0.1, "limits": Limits()}
        _model.load_reader(SplitReader, "a/b", device=None, model_kwargs={"torch_dtype": torch.float16}, **settings)
        device = ComponentDevice.resolve_device(None).to_hf()
        expected = settings | {"folder": "a/b", "token": "secret-token"}
        assert given == expected | {"dtype": torch.float16, "device_map": device}
        given.clear()
        _model.load_reader(SplitReader, "a/b", device=None, model_kwargs={"device_map": {"": "cpu:0"}}, **settings)
        assert given == expected | {"device_map": {"": "cpu:0"}}


def environment():
    path = os.pathsep.join([str(ROOT), str(ROOT / "components"), str(ROOT / "tests")])
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HAYSTACK_")}
    return kept | {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "HAYSTACK_TELEMETRY_ENABLED": "False"}


class TestSaved:
    def test_store(self):
        store = BinaryTokenStore(
            "some/model",
            "sqlite:///x.db",
            device=ComponentDevice.from_str("cuda:1"),
            token=Secret.from_env_var("TOKEN"),
            max_seq_length=256,
            stride=32,
            batch_size=8,
            progress_bar=False,
            model_kwargs={"dtype": torch.float16, "revision": "main"},
            coded_share=0.5,
            keep_ids=True,
            merged_share=0.2,
        )
        data = store.to_dict()
        assert data == {
            "type": "haystack_integrations.components.readers.btr.binary_token_store.BinaryTokenStore",
            "init_parameters": {
                "model": "some/model",
                "url": "sqlite:///x.db",
                "device": {"type": "single", "device": "cuda:1"},
                "token": {"type": "env_var", "env_vars": ["TOKEN"], "strict": True},
                "max_seq_length": 256,
                "stride": 32,
                "batch_size": 8,
                "progress_bar": False,
                "bits": None,
                "coded_share": 0.5,
                "keep_ids": True,
                "merged_share": 0.2,
                "write_back": True,
                "limits": Limits().to_dict(),
                "model_kwargs": {"dtype": "torch.float16", "revision": "main"},
            },
        }
        restored = BinaryTokenStore.from_dict(data)
        assert restored.to_dict() == data
        assert restored.model_kwargs == store.model_kwargs == {"dtype": torch.float16, "revision": "main"}
        assert data["init_parameters"]["model_kwargs"]["dtype"] == "torch.float16"

    def test_reader(self, split_reader):
        data = BTRReader(
            split_reader(),
            device=ComponentDevice.from_str("cpu"),
            token=None,
            top_k=7,
            score_threshold=0.1,
            max_seq_length=256,
            stride=32,
            max_batch_size=4,
            answers_per_seq=5,
            no_answer=False,
            calibration_factor=0.2,
            overlap_threshold=None,
            model_kwargs={"dtype": torch.float16},
            token_store=BinaryTokenStore(split_reader(), "memory://", max_seq_length=256, stride=32),
            max_answer_length=9,
            progress_bar=True,
        ).to_dict()
        restored = BTRReader.from_dict(data)
        assert restored.to_dict() == data
        assert isinstance(restored.token_store, BinaryTokenStore)
        assert restored.overlap_threshold is None

    def test_defaults_name_the_shipped_model_and_no_machine(self):
        saved = BTRReader().to_dict()["init_parameters"]
        assert saved["model"] == "btr-flan-t5-small-squad"
        assert saved["device"] is saved["model_kwargs"] is saved["token_store"] is None
        assert BTRReader.from_dict({"type": BTRReader().to_dict()["type"], "init_parameters": {}}).top_k == 20

    def test_pipelines_of_two_processes(self, split_reader, documents, tmp_path, url):
        """An indexing pipeline and a query pipeline, both saved, know each other only by the url of the store."""
        tokens = {"model": split_reader(), "url": url, "progress_bar": False}
        indexing = Pipeline()
        indexing.add_component("tokens", BinaryTokenStore(**tokens))
        with (tmp_path / "indexing.yaml").open("w", encoding="utf-8") as file:
            indexing.dump(file)
        questions = Pipeline()
        questions.add_component("reader", BTRReader(token_store=BinaryTokenStore(**tokens), top_k=3))
        with (tmp_path / "questions.yaml").open("w", encoding="utf-8") as file:
            questions.dump(file)
        script = """
            from conftest import passage
            from haystack import Document, Pipeline
            with open("indexing.yaml", encoding="utf-8") as file:
                pipeline = Pipeline.load(file)
            documents = [Document(content=passage(number)) for number in range(8)]
            print(pipeline.run({"tokens": {"documents": documents}})["tokens"]["documents_written"])
            pipeline.close()
        """
        command = [sys.executable, "-c", textwrap.dedent(script)]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True, encoding="utf-8"
        )
        assert done.stdout.strip() == "8"
        with (tmp_path / "questions.yaml").open(encoding="utf-8") as file:
            loaded = Pipeline.load(file)
        out = loaded.run({"reader": {"query": QUERY, "documents": documents}})["reader"]
        assert out["cache"] == {"hits": 8, "misses": 0}
        assert len(out["answers"]) == 4
        loaded.close()


class TestPipeline:
    @pytest.fixture
    def pipeline(self, reader, documents):
        held = InMemoryDocumentStore()
        held.write_documents(documents)
        made = Pipeline()
        made.add_component("retriever", InMemoryBM25Retriever(held, top_k=4))
        made.add_component("reader", reader)
        made.connect("retriever.documents", "reader.documents")
        return made

    def test_answers(self, pipeline):
        given = {"retriever": {"query": QUERY}, "reader": {"query": QUERY}}
        assert pipeline.run(given)["reader"]["cache"] == {"hits": 0, "misses": 4}
        out = Pipeline.loads(pipeline.dumps())
        assert isinstance(out.get_component("reader").token_store, BinaryTokenStore)
        assert pipeline.run(given)["reader"]["cache"] == {"hits": 4, "misses": 0}

    def test_run_parameters_are_plain_values(self, pipeline):
        defaults = {
            name: socket["default_value"]
            for name, socket in pipeline.inputs()["reader"].items()
            if "default_value" in socket
        }
        assert {type(value) for value in defaults.values()} <= {type(None), float}
        given = {"retriever": {"query": QUERY}, "reader": {"query": QUERY, "overlap_threshold": None, "top_k": 40}}
        kept_all = pipeline.run(given)["reader"]["answers"]
        assert len(kept_all) == 41

    def test_async(self, pipeline):
        out = asyncio.run(pipeline.run_async({"retriever": {"query": QUERY}, "reader": {"query": QUERY}}))
        assert len(out["reader"]["answers"]) == 6

    def test_indexing_beside_a_document_store(self, store, documents):
        from haystack.components.writers import DocumentWriter

        held = InMemoryDocumentStore()
        pipeline = Pipeline()
        pipeline.add_component("tokens", store)
        pipeline.add_component("writer", DocumentWriter(held))
        pipeline.connect("tokens.documents", "writer.documents")
        out = pipeline.run({"tokens": {"documents": documents}}, include_outputs_from={"tokens"})
        assert out["writer"]["documents_written"] == out["tokens"]["documents_written"] == 8
        assert held.filter_documents() == documents


@shipped
@pytest.mark.slow
@pytest.mark.skipif(not default_model_path().exists(), reason="the default model is not in this tree")
class TestDefaultModel:
    def test_answers_a_question_with_no_network(self, url, load_shipped_once):
        documents = [
            Document(content="Oslo is the capital of Norway. It has about 700,000 inhabitants."),
            Document(content="Mount Kenya is the second highest mountain of Africa, after Kilimanjaro."),
        ]
        store = BinaryTokenStore(url=url, progress_bar=False)
        assert store.run(documents)["documents_written"] == 2
        out = BTRReader(token_store=store).run(QUERY, documents)
        assert out["answers"][0].data == "Oslo"
        assert out["cache"] == {"hits": 2, "misses": 0}
