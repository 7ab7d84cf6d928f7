# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""
Time of one question: BTRReader against Haystack's TransformersExtractiveReader, same weights, same run.

Both readers get the same documents (BM25's best among the shipped Wikipedia passages) in turn, A B A B ..., in float32
and one process; the whole `run` call is timed, store reads and decoding included. Medians over questions and repeats.
BTRReader forgets the tokens of the documents' texts before each call, so that it tokenises them as the other one does;
*hot* is the call after it, of the same documents, whose tokens it remembers.

    python benchmarks/reading.py --output results/reading.json
"""

import argparse
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from haystack import Document
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever
from haystack.utils import ComponentDevice

from btr_cli.benchmark import machine
from btr_cli.corpus import shipped_documents, shipped_questions
from btr_cli.figures import check_output
from btr_cli.pipelines import filled
from btr_cli.terminal import safe_output, shows_progress
from btr_haystack import BTRForQuestionAnswering, default_model_path
from btr_haystack.reader import SplitReader
from haystack_integrations.components.readers.btr import BinaryTokenStore, BTRReader
from haystack_integrations.components.readers.btr._read_through import ReadThrough
from haystack_integrations.components.readers.transformers import TransformersExtractiveReader

PASSAGES = (1, 10, 40, 100)
BATCHES = (1, 4, 16)  # questions put to the same passages at once
BATCHED = 40  # passages
STAGES = (
    ("store and unpacking", ReadThrough, "fetch"),
    ("question", SplitReader, "_question"),
    ("decode", SplitReader, "_decode"),
    ("upper layers", BTRForQuestionAnswering, "upper"),
    ("upper layers", BTRForQuestionAnswering, "first_upper"),
)


def main() -> None:
    """Print a table; write the figures as JSON where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(default_model_path()), help="folder of a BTR model")
    parser.add_argument("--passages", type=int, nargs="+", default=PASSAGES)
    parser.add_argument("--questions", type=int, default=5, help="how many of the shipped questions")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--kept-share", type=float, help="of the windows read to the end; default: the model's own")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    check_output(options.output)

    documents = shipped_documents()
    questions = [one["question"] for one in shipped_questions()][: options.questions]
    with tempfile.TemporaryDirectory() as folder:
        device = ComponentDevice.from_str(options.device)
        url, bar = f"sqlite:///{folder}/passages.db", shows_progress()
        store = BinaryTokenStore(model=options.model, url=url, device=device, progress_bar=bar)
        store.write_documents(documents)
        ours = BTRReader(model=options.model, device=device, token_store=store, kept_share=options.kept_share)
        theirs = TransformersExtractiveReader(
            model=options.model, device=device, model_kwargs={"dtype": "float32"}, token=None
        )
        rows = []
        for count in options.passages:
            found = retrieved(documents, questions, count)
            row = compare(ours, theirs, found, options.repeats)
            rows.append({"passages": count, **row, "parts_ms": parts(ours, found)})
            print_row(rows[-1])
        batches = {count: per_question(ours, documents, count, options.repeats) for count in BATCHES}
        for count, ms in batches.items():
            print(f"{count:4d} questions to the same {BATCHED} passages: {ms:.1f} ms a question", flush=True)
        kept = store.reader.model.config.kept_share if options.kept_share is None else options.kept_share
        figures = {"machine": machine(), "threads": torch.get_num_threads(), "device": options.device}
        figures |= {"kept_share": kept, "rows": rows, "batch_ms_a_question": batches}
        report = store.report()
        figures["bytes_a_token"] = report.bytes_per_token
        figures["float32_bytes_a_token"] = report.float32_bytes_per_token
        figures["float16_bytes_a_token"] = report.float16_bytes_per_token
        store.close()
    if options.output:
        options.output.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def retrieved(documents: list[Document], questions: list[str], count: int) -> list[tuple[str, list[Document]]]:
    """Each question with the passages that BM25 ranks highest."""
    retriever = InMemoryBM25Retriever(filled(documents), top_k=count)
    return [(question, retriever.run(query=question)["documents"]) for question in questions]


def compare(ours: Any, theirs: Any, found: list[tuple[str, list[Document]]], repeats: int) -> dict[str, float]:
    """Median milliseconds of both readers and the median of the ratios, pair by pair."""
    times = []
    for reader in (ours, theirs):
        reader.run(query=found[0][0], documents=found[0][1])
    for _ in range(repeats):
        for query, documents in found:
            forget(ours)
            times.append([timed(reader, query, documents) for reader in (ours, ours, theirs)])
    cold, hot, upstream = (1e3 * statistics.median(one) for one in zip(*times, strict=True))
    return {
        "btr_ms": cold,
        "btr_hot_ms": hot,
        "upstream_ms": upstream,
        "times_faster": statistics.median(theirs / ours for ours, _, theirs in times),
        "times_faster_hot": statistics.median(theirs / ours for _, ours, theirs in times),
    }


def per_question(reader: BTRReader, documents: list[Document], count: int, repeats: int) -> float:
    """Median milliseconds a question, so many put at once to the same passages."""
    shipped = [one["question"] for one in shipped_questions()]
    questions = [shipped[number % len(shipped)] for number in range(count)]
    [(_, passages)] = retrieved(documents, questions[:1], BATCHED)
    seconds = []
    for _ in range(repeats + 1):
        wait()
        start = time.perf_counter()
        reader.read_batch(questions, passages)
        seconds.append(time.perf_counter() - start)
    return 1e3 * statistics.median(seconds[1:]) / count


def forget(reader: BTRReader) -> None:
    """Make the reader tokenise its documents anew."""
    if reader.token_store is not None:
        reader.token_store.reader.token_cache.clear()


def timed(reader: Any, query: str, documents: list[Document]) -> float:
    """Seconds of one whole `run`."""
    start = time.perf_counter()
    reader.run(query=query, documents=documents)
    return time.perf_counter() - start


def parts(reader: BTRReader, found: list[tuple[str, list[Document]]]) -> dict[str, float]:
    """Median milliseconds of the stages inside `run`; what is not listed is in "rest"."""
    totals: dict[str, list[float]] = defaultdict(list)
    spent: dict[str, float] = defaultdict(float)

    def clocked(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
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
            stack.enter_context(patch.object(owner, method, clocked(name, getattr(owner, method))))
        for query, documents in found:
            forget(reader)
            spent.clear()
            whole = timed(reader, query, documents)
            for name in dict.fromkeys(name for name, _, _ in STAGES):
                totals[name].append(spent[name])
            totals["rest (batches, spans, answers)"].append(whole - sum(spent.values()))
    return {name: 1e3 * statistics.median(seconds) for name, seconds in totals.items()}


def wait() -> None:
    """Until the GPU, where there is one, has done what it was told."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def print_row(row: dict[str, Any]) -> None:
    """One line a number of passages."""
    stages = ", ".join(f"{name} {milliseconds:.1f}" for name, milliseconds in row["parts_ms"].items())
    print(
        f"{row['passages']:4d} passages: {row['times_faster']:.2f} times faster "
        f"({row['btr_ms']:.1f} ms against {row['upstream_ms']:.1f} ms), {row['times_faster_hot']:.2f} hot; {stages}",
        flush=True,
    )


if __name__ == "__main__":
    with safe_output():
        main()
