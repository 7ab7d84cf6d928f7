# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""
Index passages: into a document store, where a retriever finds them, and as bits, which BTRReader reads.

The pipeline is saved as YAML in the working directory and loaded again before it runs.
"""

from pathlib import Path

from haystack import Pipeline
from haystack.components.writers import DocumentWriter
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.document_stores.types import DuplicatePolicy

from btr_cli.corpus import shipped_documents
from haystack_integrations.components.readers.btr import BinaryTokenStore

URL = "sqlite:///passages.db"  # in the working directory

pipeline = Pipeline()
pipeline.add_component("encoder", BinaryTokenStore(url=URL))
pipeline.add_component("writer", DocumentWriter(InMemoryDocumentStore(index="passages"), DuplicatePolicy.SKIP))
pipeline.connect("encoder.documents", "writer.documents")

saved = Path("my_indexing_pipeline.yaml")
with saved.open("w", encoding="utf-8") as file:
    pipeline.dump(file)
with saved.open(encoding="utf-8") as file:
    pipeline = Pipeline.load(file)

documents = shipped_documents()[:120]
outputs = pipeline.run({"encoder": {"documents": documents}})
print(f"{outputs['encoder']['documents_written']} of {len(documents)} passages encoded; the store had the others.")
print(f"{outputs['writer']['documents_written']} documents written to the document store.")
pipeline.close()

with BinaryTokenStore(url=URL) as store:  # opened without its model, which only encoding needs
    report = store.report()
print(report)
floats = f"{report.float32_bytes_per_token:,} as float32 states, {report.float16_bytes_per_token:,} as float16"
print(f"{report.bytes_per_token:.1f} bytes a token; {floats}")

# The store is ready for questions: the passages come from their bits.
with Path(__file__).with_name("query_pipeline.yaml").open(encoding="utf-8") as file:
    questions = Pipeline.load(file)
query = "Which product was the first to have its UPC barcode scanned?"
result = questions.run({"retriever": {"query": query}, "reader": {"query": query}})["reader"]
print(f"{query} {result['answers'][0].data} ({result['cache']['hits']} hits, {result['cache']['misses']} misses)")
questions.close()
