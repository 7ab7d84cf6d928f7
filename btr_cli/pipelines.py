# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""The pipeline of the command line: BM25 in memory, then a reader."""

import random
from typing import Any, TypeVar

from haystack import Document, Pipeline
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.document_stores.types import DuplicatePolicy

from btr_haystack.config import BTRConfig
from btr_haystack.model_files import config_of
from btr_haystack.stores import MEMORY
from haystack_integrations.components.readers.btr import BTRGenerativeReader, BTRReader

LONGEST_ANSWER = 30  # tokens
ANSWERS: dict[str, Any] = {"top_k": 1, "no_answer": False, "max_answer_length": LONGEST_ANSWER}

T = TypeVar("T")
Reader = BTRReader | BTRGenerativeReader


def keeps(model: str) -> bool:
    """Whether a model is one whose passages can be kept."""
    config = config_of(model)
    return isinstance(config, BTRConfig) and config.k > 0


def sampled(items: list[T], sample: int | None, seed: int) -> list[T]:
    """
    All items, or a sample of them in their order.

    :param items: of a file.
    :param sample: how many; None for all.
    :param seed: of the choice.
    """
    if sample is None or sample >= len(items):
        return items
    return [items[i] for i in sorted(random.Random(seed).sample(range(len(items)), sample))]  # noqa: S311


def filled(documents: list[Document]) -> InMemoryDocumentStore:
    """A document store in memory; documents with the same id are one."""
    store = InMemoryDocumentStore()
    store.write_documents(documents, DuplicatePolicy.OVERWRITE)
    return store


def question_pipeline(documents: list[Document], reader: Any, top_k: int) -> Pipeline:
    """
    Retrieve with BM25, then read.

    :param documents: what is searched.
    :param reader: a reader component.
    :param top_k: passages retrieved.
    """
    pipeline = Pipeline()
    pipeline.add_component("retriever", InMemoryBM25Retriever(filled(documents), top_k=top_k))
    pipeline.add_component("reader", reader)
    pipeline.connect("retriever.documents", "reader.documents")
    return pipeline


def put_question(pipeline: Pipeline, question: str) -> dict[str, Any]:
    """The reader's outputs for one question."""
    outputs: dict[str, Any] = pipeline.run({"retriever": {"query": question}, "reader": {"query": question}})["reader"]
    return outputs


def try_out(reader: Reader) -> None:
    """
    Let a reader answer once and close it: what it refuses, it refuses before any work.

    :param reader: opens its store; one in a file is not written to.
    """
    reader.warm_up()
    if reader.token_store is None or reader.token_store.url == MEMORY:
        reader.run(query="Who wrote it?", documents=[Document(content="It was written by Ada Lovelace.")])
    reader.close()
