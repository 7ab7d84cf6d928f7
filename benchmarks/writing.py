# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""
Time of one written answer: BTRGenerativeReader against Fusion-in-Decoder in plain transformers, same weights, same run.

The reference is what one writes first: all rows padded to the longest; its share of padding is reported.

Both get the same documents (BM25's best among the shipped Wikipedia passages) in turn, in float32 and one process, and
write the same number of tokens. Whole calls are timed, store reads and tokenising included.

    python -m benchmarks.writing --output results/writing.json
"""

import argparse
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from haystack import Document
from haystack.utils import ComponentDevice
from torch import Tensor
from transformers import T5ForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.t5.modeling_t5 import T5LayerCrossAttention

from benchmarks.reading import retrieved, timed, wait
from btr_cli.benchmark import machine
from btr_cli.corpus import shipped_documents, shipped_questions
from btr_cli.figures import check_output
from btr_cli.terminal import safe_output, shows_progress
from btr_haystack import BTRForConditionalGeneration, default_model_path
from btr_haystack.model_files import tokenizer_of
from haystack_integrations.components.readers.btr import BinaryTokenStore, BTRGenerativeReader

PASSAGES = (1, 5, 10, 20, 40, 100)
MERGED: dict[str, Any] = {"merged_inside": 0.2, "merged_across": 0.2}


class FusionInDecoder:
    """
    The reference: rows in one padded batch, the encoder's states behind each other, transformers' generation.

    :param model: T5 of the same weights.
    :param tokenizer: its tokenizer.
    :param settings: of `generate`.
    """

    def __init__(self, model: T5ForConditionalGeneration, tokenizer: Any, settings: dict[str, int]) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.settings = settings

    @torch.inference_mode()
    def run(self, query: str, documents: list[Document]) -> str:
        """The answer's text."""
        texts = [document.content for document in documents]
        rows = self.tokenizer(
            [query] * len(texts), texts, padding=True, truncation="only_second", max_length=384, return_tensors="pt"
        ).to(self.model.device)
        text: str = self.tokenizer.decode(self.write(self.encode(rows), rows), skip_special_tokens=True)
        return text

    def encode(self, rows: Any) -> Tensor:
        """(rows, tokens, d) of the whole encoder."""
        states: Tensor = self.model.encoder(input_ids=rows["input_ids"], attention_mask=rows["attention_mask"])[0]
        return states

    def write(self, states: Tensor, rows: Any) -> Tensor:
        """Token ids of the answer."""
        ids: Tensor = self.model.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=states.flatten(0, 1)[None]),
            attention_mask=rows["attention_mask"].flatten()[None],
            decoder_start_token_id=self.model.config.pad_token_id,
            **self.settings,
        )
        return ids[0]


STAGES = (
    ("upper layers", BTRForConditionalGeneration, "upper"),
    ("upper layers", BTRForConditionalGeneration, "first_upper"),
    ("upper layers", BTRForConditionalGeneration, "upper_merged"),
    ("decoder", BTRForConditionalGeneration, "write"),
    ("encoder", FusionInDecoder, "encode"),
    ("decoder", FusionInDecoder, "write"),
    ("cross-attention", T5LayerCrossAttention, "forward"),
)


def main() -> None:
    """Print a table; write the figures as JSON where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(default_model_path()), help="folder of a BTR model")
    parser.add_argument("--passages", type=int, nargs="+", default=PASSAGES)
    parser.add_argument("--questions", type=int, default=3, help="how many of the shipped questions")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=8, help="tokens written")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    check_output(options.output)

    documents = shipped_documents()
    questions = [one["question"] for one in shipped_questions()][: options.questions]
    settings = {"min_new_tokens": options.tokens, "max_new_tokens": options.tokens}
    with tempfile.TemporaryDirectory() as folder:
        device = ComponentDevice.from_str(options.device)
        model = BTRForConditionalGeneration.from_pretrained(options.model, dtype=torch.float32).eval()
        model.to(options.device)
        tokenizer = tokenizer_of(options.model)
        url, bar = f"sqlite:///{folder}/passages.db", shows_progress()
        store = BinaryTokenStore(options.model, url=url, device=device, progress_bar=bar)
        store.write_documents(documents)
        plain = BTRGenerativeReader(token_store=store, generation_kwargs=settings)
        merged = BTRGenerativeReader(token_store=store, generation_kwargs=settings, **MERGED)
        readers: dict[str, Any] = {
            "btr": plain,
            "btr_merged": merged,
            "fid": FusionInDecoder(model.encoder, tokenizer, settings),
        }
        rows = []
        for count in options.passages:
            found = retrieved(documents, questions, count)
            row: dict[str, Any] = {"passages": count, **compare(readers, found, options.repeats)}
            row["fid_padding"] = statistics.mean(padding(tokenizer, *one) for one in found)
            row["parts_ms"] = {name: parts(readers[name], found) for name in readers}
            rows.append(row)
            print(
                f"{count:4d} passages: {row['times_faster']:.2f} times faster, merged {row['times_faster_merged']:.2f} "
                f"({row['btr_ms']:.0f} and {row['btr_merged_ms']:.0f} ms against {row['fid_ms']:.0f} ms)",
                flush=True,
            )
        store.close()
    if options.output:
        figures = {
            "machine": machine(),
            "device": options.device,
            "tokens": options.tokens,
            "merged": MERGED,
            "rows": rows,
        }
        options.output.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def padding(tokenizer: Any, query: str, documents: list[Document]) -> float:
    """Share of the reference's tokens that are padding."""
    texts = [document.content for document in documents]
    lengths = [min(len(ids), 384) for ids in tokenizer([query] * len(texts), texts)["input_ids"]]
    return 1 - sum(lengths) / (len(lengths) * max(lengths))


def compare(readers: dict[str, Any], found: list[tuple[str, list[Document]]], repeats: int) -> dict[str, float]:
    """Median milliseconds of each reader, and the medians of the ratios, call by call."""
    calls: list[dict[str, float]] = []
    for reader in readers.values():
        reader.run(query=found[0][0], documents=found[0][1])
    for _ in range(repeats):
        for query, documents in found:
            calls.append({name: timed(reader, query, documents) for name, reader in readers.items()})
    return {
        **{f"{name}_ms": 1e3 * statistics.median(call[name] for call in calls) for name in readers},
        "times_faster": statistics.median(call["fid"] / call["btr"] for call in calls),
        "times_faster_merged": statistics.median(call["fid"] / call["btr_merged"] for call in calls),
    }


def parts(reader: BTRGenerativeReader | FusionInDecoder, found: list[tuple[str, list[Document]]]) -> dict[str, float]:
    """Median milliseconds of the stages inside a call; "decoder" is without its cross-attention."""
    totals: dict[str, list[float]] = defaultdict(list)
    for query, documents in found:
        with clocked() as spent:
            whole = timed(reader, query, documents)
        spent["decoder"] -= spent["cross-attention"]
        for name, seconds in spent.items():
            if seconds:
                totals[name].append(seconds)
        totals["rest (store, question, decoding codes, batches)"].append(whole - sum(spent.values()))
    return {name: 1e3 * statistics.median(seconds) for name, seconds in totals.items()}


@contextmanager
def clocked() -> Iterator[dict[str, float]]:
    """Seconds spent in each stage while this lasts."""
    spent = dict.fromkeys((name for name, _, _ in STAGES), 0.0)

    def timing(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            wait()
            start = time.perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                wait()
                spent[name] += time.perf_counter() - start

        return run

    with ExitStack() as stack:
        for name, owner, method in STAGES:
            stack.enter_context(patch.object(owner, method, timing(name, getattr(owner, method))))
        yield spent


if __name__ == "__main__":
    with safe_output():
        main()
