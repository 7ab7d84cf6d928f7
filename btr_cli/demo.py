# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""`btr demo`: the shipped reader on the shipped passages, beside the ordinary reader of the same weights."""

import statistics
import time
from typing import Any

from haystack import Pipeline
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from btr_cli.corpus import cached_store, shipped_documents, shipped_questions
from btr_cli.pipelines import put_question, question_pipeline
from btr_haystack import default_model_path
from haystack_integrations.components.readers.btr import BTRReader

TOP_K = 10


def demo() -> None:
    """
    Encode 1,263 Wikipedia passages into bits, ask questions, and compare with the ordinary reader.
    """
    console = Console()
    documents, questions = shipped_documents(), shipped_questions()
    with cached_store() as store:
        start = time.perf_counter()
        written = store.write_documents(documents)
        seconds = time.perf_counter() - start
        console.print(
            f"{written} of {len(documents)} passages encoded in {seconds:.1f} s; the others were in the store."
        )
        ours = question_pipeline(documents, BTRReader(token_store=store, top_k=1, no_answer=False), TOP_K)
        theirs = question_pipeline(documents, ordinary_reader(), TOP_K)
        outputs, times = timed(ours, [one["question"] for one in questions])
        ordinary, ordinary_times = timed(theirs, [one["question"] for one in questions])
        report = store.report()

    answers = Table(title=f"BTRReader, {TOP_K} passages a question")
    for name in ("question", "BTRReader", "ordinary reader", "passage", "score", "from the store"):
        answers.add_column(name)
    for one, out, other in zip(questions, outputs, ordinary, strict=True):
        best, cache = out["answers"][0], out["cache"]
        hits = f"{cache['hits']} hits, {cache['misses']} misses"
        answers.add_row(
            *map(escape, (one["question"], best.data, other["answers"][0].data, best.document.meta["title"])),
            f"{best.score:.3f}",
            hits,
        )
    console.print(answers)

    ours_ms, theirs_ms = 1e3 * statistics.median(times), 1e3 * statistics.median(ordinary_times)
    figures = Table(title=f"{len(questions)} questions, {TOP_K} passages each, medians of the whole pipeline")
    for name in ("reader", "ms a question", "times faster", "bytes a token"):
        figures.add_column(name, justify="left" if name == "reader" else "right")
    figures.add_row(
        "ordinary, same weights", f"{theirs_ms:.0f}", "1.0", f"{report.float32_bytes_per_token:.0f} (float32 states)"
    )
    figures.add_row(
        "BTRReader", f"{ours_ms:.0f}", f"{theirs_ms / ours_ms:.1f}", f"{report.bytes_per_token:.1f} (all counted)"
    )
    console.print(figures)
    console.print('Your own question: btr ask "Who painted the Mona Lisa?"')


def ordinary_reader() -> Any:
    """
    Haystack's own reader with the weights of the shipped one.

    :raises ImportError: without the package that it lives in.
    """
    try:
        from haystack_integrations.components.readers.transformers import TransformersExtractiveReader
    except ImportError as error:
        msg = "the demo compares with Haystack's own reader: pip install 'btr-haystack[compare]'"
        raise ImportError(msg) from error
    return TransformersExtractiveReader(
        model=str(default_model_path()), top_k=1, no_answer=False, model_kwargs={"dtype": "float32"}
    )


def timed(pipeline: Pipeline, questions: list[str]) -> tuple[list[dict[str, Any]], list[float]]:
    """The outputs for each question and the seconds it took; the first question is put once more, for loading."""
    put_question(pipeline, questions[0])
    outputs, seconds = [], []
    for question in questions:
        start = time.perf_counter()
        outputs.append(put_question(pipeline, question))
        seconds.append(time.perf_counter() - start)
    return outputs, seconds
