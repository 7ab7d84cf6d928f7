# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""`btr demo`: the shipped reader on the shipped passages, beside the shipped ordinary reader."""

import statistics
import sys
import time
from typing import Any

from haystack import Pipeline
from rich.table import Table
from rich.text import Text

from btr_cli.answers import best
from btr_cli.corpus import cached_store, shipped_documents, shipped_questions
from btr_cli.pipelines import ANSWERS, put_question, question_pipeline
from btr_cli.terminal import result_console
from btr_haystack import default_teacher_path
from btr_haystack.default import DEFAULT_TEACHER
from btr_haystack.display import shown
from btr_haystack.metrics import exact_match
from haystack_integrations.components.readers.btr import BTRReader

TOP_K = 10
AGAIN = 2  # documents that the ordinary reader reads again


def demo() -> None:
    """
    Encode 1,263 Wikipedia passages into bits, ask questions, and compare with the ordinary reader.
    """
    console = result_console()
    documents, questions = shipped_documents(), shipped_questions()
    with cached_store() as store:
        start = time.perf_counter()
        written = store.write_documents(documents)
        seconds = time.perf_counter() - start
        console.print(
            f"{written} of {len(documents)} passages encoded in {seconds:.1f} s; the others were in the store."
        )
        asked = [one["question"] for one in questions]
        ordinary = timed(question_pipeline(documents, ordinary_reader(str(default_teacher_path())), TOP_K), asked)
        ours = timed(question_pipeline(documents, BTRReader(token_store=store, **ANSWERS), TOP_K), asked)
        second = BTRReader(token_store=store, second_model=DEFAULT_TEACHER, second_read=AGAIN, **ANSWERS)
        again = timed(question_pipeline(documents, second, TOP_K), asked)
        report = store.report()

    answers = Table(title=f"BTRReader, {TOP_K} passages a question")
    for name in ("question", "answer", "passage"):
        answers.add_column(name, ratio=1, overflow="fold")
    for name in ("score", "hits", "misses"):
        answers.add_column(name, justify="right", no_wrap=True)
    for one, out in zip(questions, ours[0], strict=True):
        first, cache = out["answers"][0], out["cache"]
        texts = map(Text, map(shown, (one["question"], first.data, first.document.meta["title"])))
        answers.add_row(*texts, f"{first.score:.3f}", str(cache["hits"]), str(cache["misses"]))
    console.print(answers)

    figures = Table(title=f"{len(questions)} questions, {TOP_K} passages each, medians of the whole pipeline")
    for name in ("reader", "ms a question", "times faster", "right answers", "as ordinary", "bytes a token"):
        figures.add_column(name, justify="left" if name == "reader" else "right", overflow="fold")
    kept = f"{report.bytes_per_token:.1f} (all counted)"
    states = f"{report.float32_bytes_per_token:.0f}, {report.float16_bytes_per_token:.0f} in half (states)"
    base_ms = statistics.median(ordinary[1])
    rows = (("ordinary", ordinary, states), ("BTRReader", ours, kept), (f"best {AGAIN} read again", again, kept))
    for name, (outputs, times), size in rows:
        given = [best(out)[0] for out in outputs]
        right = sum(int(exact_match(one, about["answers"])) for one, about in zip(given, questions, strict=True))
        pairs = zip(given, ordinary[0], strict=True)
        same = sum(int(exact_match(one, [best(other)[0]])) for one, other in pairs)
        ms = statistics.median(times)
        shares = (f"{count} of {len(questions)}" for count in (right, same))
        figures.add_row(name, f"{1e3 * ms:.0f}", f"{base_ms / ms:.1f}", *shares, size)
    console.print(figures)
    own = 'ask "How deep is the Channel Tunnel at its deepest?"'
    console.print(Text(f"Your own question: {sys.argv[0]} {own}"), soft_wrap=True)


def ordinary_reader(model: str) -> Any:
    """
    Haystack's own reader with a model of ours, read jointly, in float32.

    :param model: folder or hub id.
    :raises ImportError: without the package that it lives in.
    """
    try:
        from haystack_integrations.components.readers.transformers import TransformersExtractiveReader
    except ImportError as error:
        msg = "comparing takes Haystack's own reader: pip install 'btr-haystack[compare]'"
        raise ImportError(msg) from error
    return TransformersExtractiveReader(model=model, top_k=1, no_answer=False, model_kwargs={"dtype": "float32"})


def timed(pipeline: Pipeline, questions: list[str]) -> tuple[list[dict[str, Any]], list[float]]:
    """The outputs for each question and the seconds it took; the first question is put once more, for loading."""
    put_question(pipeline, questions[0])
    outputs, seconds = [], []
    for question in questions:
        start = time.perf_counter()
        outputs.append(put_question(pipeline, question))
        seconds.append(time.perf_counter() - start)
    return outputs, seconds
