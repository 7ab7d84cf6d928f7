# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""
Ask questions: BM25 finds passages, BTRReader reads them from their bits.

The pipeline is saved as YAML in the working directory and loaded again before it runs. Passages that the token store
lacks are encoded while the question waits, and kept: asked again, everything is a hit.
"""

from pathlib import Path

from haystack import Pipeline
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever
from haystack.document_stores.in_memory import InMemoryDocumentStore

from btr_cli.corpus import shipped_documents
from haystack_integrations.components.readers.btr import BinaryTokenStore, BTRReader

QUESTIONS = [
    "Which product was the first to have its UPC barcode scanned?",
    "What was kept in the vaults beneath the Brooklyn Bridge?",
    "How deep is the Channel Tunnel at its deepest?",
]

# 120 passages go through the indexing pipeline of the other example: its BinaryTokenStore has their bits.
documents = shipped_documents()
with Path(__file__).with_name("indexing_pipeline.yaml").open(encoding="utf-8") as file:
    Pipeline.load(file).run({"encoder": {"documents": documents[:120]}})

# 180 more reach the document store by another way, so that there is something to miss.
document_store = InMemoryDocumentStore(index="passages")
document_store.write_documents(documents[120:300])

pipeline = Pipeline()
pipeline.add_component("retriever", InMemoryBM25Retriever(document_store))
token_store = BinaryTokenStore(url="sqlite:///passages.db")
pipeline.add_component("reader", BTRReader(token_store=token_store, top_k=3, no_answer=False))
pipeline.connect("retriever.documents", "reader.documents")

saved = Path("my_query_pipeline.yaml")
with saved.open("w", encoding="utf-8") as file:
    pipeline.dump(file)
with saved.open(encoding="utf-8") as file:
    pipeline = Pipeline.load(file)

for round_name in ("first time", "second time"):
    print(f"\n{round_name}:")
    for question in QUESTIONS:
        outputs = pipeline.run({"retriever": {"query": question}, "reader": {"query": question}})["reader"]
        best, cache = outputs["answers"][0], outputs["cache"]
        print(f"  {question} {best.data} ({best.document.meta['title']}, score {best.score:.3f})")
        print(f"    {cache['hits']} passages from the store, {cache['misses']} encoded now")
pipeline.close()
