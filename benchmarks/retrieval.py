# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""
Open reading against how much the retriever's scores count beside the reader's (`BTRReader(retrieval_weight=...)`).

    python benchmarks/retrieval.py dev.json --model teacher --model btr-flan-t5-small-squad --output figures.json

Every passage is read once; since a weight adds the same to all spans of a passage, its best span then gives the answer
for every weight, the one that `btr evaluate --mode open --retrieval-weight W --kept-share 1` gives.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from haystack import Document
from rich.table import Table

from btr_cli.benchmark import machine, retrieved
from btr_cli.figures import check_output
from btr_cli.pipelines import LONGEST_ANSWER
from btr_cli.squad import Asked, corpus, drawn
from btr_cli.terminal import readable, result_console, safe_output, tracked
from btr_haystack import SplitReader
from btr_haystack.default import model_source
from btr_haystack.metrics import exact_match, f1
from btr_haystack.reader import Spans
from btr_haystack.squad import read_squad

WEIGHTS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 2.0)
NOTHING = (0.0, 0.0, 0.0, 0.0, False)  # BM25 may find no passage
Found = tuple[float, float, float, float, bool]  # retriever's score, reader's score, EM, F1, the right passage


def main(
    data: Annotated[Path, typer.Argument(help="SQuAD-format file; BM25 searches all of its paragraphs.")],
    model: Annotated[list[str], typer.Option(help="Reader; may be given again.")],
    sample: Annotated[int, typer.Option(min=1, help="Questions, drawn with the seed.")] = 400,
    seed: Annotated[int, typer.Option(help="Of the sample.")] = 0,
    top_k: Annotated[int, typer.Option(min=1, help="Passages retrieved.")] = 10,
    output: Annotated[Path | None, typer.Option(help="JSON file for the figures.")] = None,
) -> None:
    """Exact match, F1 and the share of answers from the right passage, for several weights."""
    paragraphs = read_squad(data)
    asked = drawn(paragraphs, sample, seed)
    check_output(output)
    task = retrieved(asked, corpus(paragraphs), top_k)
    first = np.mean([bool(docs) and docs[0].content == one[0].text for one, docs in task])
    among = np.mean([any(d.content == one[0].text for d in docs) for one, docs in task])
    rows = []
    for name in model:
        reader = SplitReader.from_pretrained(model_source(name))
        every = [read(reader, one, documents) for one, documents in tracked(task, Path(name).name)]
        rows += [{"model": Path(name).name, "weight": weight, **figures(every, weight)} for weight in WEIGHTS]
    title = (
        f"{data.name}, {len(asked)} questions, seed {seed}, BM25: right passage first {first:.1%}, among {among:.1%}"
    )
    table = Table("model", "weight", "EM", "F1", "right passage", title=title)
    for row in rows:
        shown = (f"{row['em']:.1f}", f"{row['f1']:.1f}", f"{row['right_passage']:.1%}")
        table.add_row(str(row["model"]), f"{row['weight']:g}", *shown)
    if output:
        told = {
            "data": readable(data.name),
            "questions": len(asked),
            "seed": seed,
            "top_k": top_k,
            "machine": machine(),
        }
        told |= {"retrieved_first": float(first), "retrieved": float(among), "rows": rows}
        output.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    result_console().print(table)


def read(reader: SplitReader, asked: Asked, documents: list[Document]) -> list[Found]:
    """The best span of each passage."""
    paragraph, question = asked
    texts = [document.content or "" for document in documents]
    limits: dict[str, Any] = {"spans_per_window": 1, "max_answer_length": LONGEST_ANSWER}
    if reader.joint:
        spans = reader.read_jointly(question.text, texts, **limits)
    else:
        [spans] = reader.read([question.text], reader.encode(texts), kept_share=1.0, **limits)
    golds = [answer for answer, _ in question.answers]
    found = []
    for document, text, place in zip(documents, texts, best_of_each(spans, len(texts)), strict=True):
        if place is None:
            continue
        offsets = reader.token_cache.offsets(text)
        answer = text[int(offsets[spans.start[place], 0]) : int(offsets[spans.end[place], 1])]
        scores = (document.score or 0.0, float(spans.score[place]))
        found.append((*scores, exact_match(answer, golds), f1(answer, golds), text == paragraph.text))
    return found


def best_of_each(spans: Spans, passages: int) -> list[int | None]:
    """The number of each passage's best span, None where it has none."""
    best: list[int | None] = [None] * passages
    for place in np.argsort(spans.score, kind="stable").tolist():
        best[spans.passage[place]] = place
    return best


def figures(every: list[list[Found]], weight: float) -> dict[str, float]:
    """Means in percent over the questions, and the share of answers from the right passage."""
    chosen = [max(found, key=lambda one: one[1] + weight * one[0], default=NOTHING) for found in every]
    matches, overlaps, right = (np.mean([one[i] for one in chosen]) for i in (2, 3, 4))
    return {"em": 100 * float(matches), "f1": 100 * float(overlaps), "right_passage": float(right)}


if __name__ == "__main__":
    with safe_output():
        typer.run(main)
