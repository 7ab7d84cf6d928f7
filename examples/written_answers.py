# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""
Write answers: BTRReader and BTRGenerativeReader over one store, with and without runtime compression.

The first reader finds a span, the second writes, with the decoder of the same model. Both read the same bits.
"""

from haystack import Pipeline
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever
from haystack.document_stores.in_memory import InMemoryDocumentStore

from btr_cli.corpus import shipped_documents
from haystack_integrations.components.readers.btr import BinaryTokenStore, BTRGenerativeReader, BTRReader

QUESTIONS = [
    "Which product was the first to have its UPC barcode scanned?",
    "In which town was Adolphe Sax born?",
]

documents = shipped_documents()[:120]
document_store = InMemoryDocumentStore()
document_store.write_documents(documents)
token_store = BinaryTokenStore(url="sqlite:///passages.db")
token_store.write_documents(documents)

pipeline = Pipeline()
pipeline.add_component("retriever", InMemoryBM25Retriever(document_store))
pipeline.add_component("finder", BTRReader(token_store=token_store, top_k=1, no_answer=False))
pipeline.add_component("writer", BTRGenerativeReader(token_store=token_store))
pipeline.connect("retriever.documents", "finder.documents")
pipeline.connect("retriever.documents", "writer.documents")

for question in QUESTIONS:
    for merged in (0.0, 0.2):
        outputs = pipeline.run(
            {
                "retriever": {"query": question},
                "finder": {"query": question},
                "writer": {"query": question, "merged_inside": merged, "merged_across": merged},
            }
        )
        found, written = outputs["finder"]["answers"][0], outputs["writer"]["answers"][0]
        print(f"{question}\n  found: {found.data}; written with {merged:.0%} merged: {written.data}")
        print(f"  log-probability {written.meta['score']:.2f}, {written.meta['hits']} passages from the store")
pipeline.close()
