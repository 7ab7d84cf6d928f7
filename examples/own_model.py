# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""
Make a BTR reader of a question-answering checkpoint of your own, with the split and the number of bits you choose.

    python own_model.py deepset/tinyroberta-squad2 --k 4 --bits 128

The codes are fitted in closed form. That is where training starts, not where it ends: the stages of
`btr train` bring back what the split and the bits have cost (see `btr train --help`).
"""

import argparse
import tempfile
from pathlib import Path

import torch
from transformers import BertConfig, BertForQuestionAnswering, BertTokenizer

from btr_cli.corpus import shipped_documents
from btr_haystack import BTRForQuestionAnswering, fit_codes
from btr_haystack.model_files import config_of, tokenizer_of
from haystack_integrations.components.readers.btr import BinaryTokenStore, BTRReader


def tiny_checkpoint(folder: Path, texts: list[str]) -> None:
    """An untrained BERT with a span head, for a first look without a download."""
    tokenizer = BertTokenizer().train_new_from_iterator(texts, 3000)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=64, num_hidden_layers=4, num_attention_heads=4, intermediate_size=128
    )
    torch.manual_seed(0)
    BertForQuestionAnswering(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


parser = argparse.ArgumentParser(description="Make a BTR reader of a question-answering checkpoint.")
parser.add_argument("reader", nargs="?", help="folder or hub id of a BERT, RoBERTa, DistilBERT, ... or T5 reader")
parser.add_argument("--k", type=int, help="lower layers, which see a passage alone; default: three quarters of them")
parser.add_argument("--bits", type=int, default=128, help="bits a token")
parser.add_argument("--output", type=Path, default=Path("my-btr-reader"), help="folder of the new model")
arguments = parser.parse_args()

documents = shipped_documents()[:100]
texts = [document.content or "" for document in documents]

with tempfile.TemporaryDirectory() as scratch:
    reader = arguments.reader or scratch
    if arguments.reader is None:
        print("No checkpoint given: making a tiny one with random weights. Its answers mean nothing.")
        tiny_checkpoint(Path(scratch), texts)
    config = config_of(reader)
    layers = getattr(config, "encoder", config).num_hidden_layers  # a BTR reader has its encoder's settings inside
    k = layers * 3 // 4 if arguments.k is None else arguments.k
    model = BTRForQuestionAnswering.from_reader(reader, k=k, bits=arguments.bits)  # "MISSING": the codes, fitted below
    tokenizer = tokenizer_of(reader)

error = fit_codes(model, tokenizer, texts)  # passages like those that will be read
model.save_pretrained(arguments.output)
tokenizer.save_pretrained(arguments.output)
print(f"{arguments.output}: {k} of {layers} layers see a passage alone and leave {arguments.bits} bits a token.")
print(f"Relative squared error of the fitted codes: {error:.2f}. Training makes them, and the answers, accurate:")
print("    btr train teacher --base READER --data train-v1.1.json --output teacher")
data = "--teacher teacher --data train-v1.1.json"
print(f"    btr train decomposed --base teacher --k {k} {data} --output decomposed")
print(f"    btr train binarised --base decomposed --k {k} --bits {arguments.bits} {data} --output {arguments.output}")

# The folder is a model like any other. "sqlite:///store.db" instead of "memory://" keeps the bits.
store = BinaryTokenStore(model=arguments.output, url="memory://")
store.write_documents(documents)
print(store.report())
outputs = BTRReader(token_store=store, top_k=1, no_answer=False).run(
    query="Which product was the first to have its UPC barcode scanned?", documents=documents
)
print(f"Answer: {outputs['answers'][0].data!r}, {outputs['cache']['hits']} passages from the store")
