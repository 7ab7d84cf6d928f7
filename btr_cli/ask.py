# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""`btr ask`: one question to a set of documents."""

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from btr_cli.corpus import cached_store, read_documents, shipped_documents
from btr_cli.figures import empty_table
from btr_cli.pipelines import ANSWERS, put_question, question_pipeline
from btr_cli.terminal import readable, result_console, shows_progress
from btr_haystack.default import DEFAULT_MODEL, model_source
from btr_haystack.display import shown
from btr_haystack.stores import MEMORY
from haystack_integrations.components.readers.btr import BinaryTokenStore, BTRReader

UNREADABLE = "\ufffd"


def ask(
    question: Annotated[str, typer.Argument(help="What you want to know.")],
    documents: Annotated[
        Path | None, typer.Option(help="JSON lines with text and title; default: the shipped Wikipedia passages.")
    ] = None,
    store: Annotated[str | None, typer.Option(help="Url of the store, such as sqlite:///passages.db.")] = None,
    model: Annotated[str | None, typer.Option(help="Folder or hub id of a reader; default: the shipped one.")] = None,
    top_k: Annotated[int, typer.Option(min=1, help="Passages retrieved.")] = 10,
    answers: Annotated[int, typer.Option(min=1, help="Answers shown.")] = 3,
) -> None:
    """
    Ask a question; passages are encoded the first time and read from their bits from then on.
    """
    if not question.strip():
        msg = "the question is empty"
        raise ValueError(msg)
    given, question = question, readable(question)
    if question.count(UNREADABLE) > given.count(UNREADABLE):
        typer.echo(f"the question has bytes that are not UTF-8; it is read as: {shown(question, None)}", err=True)
    found = read_documents(documents) if documents else shipped_documents()
    shipped = documents is None and model is None and store is None
    chosen = model_source(model) if model else DEFAULT_MODEL
    bar = shows_progress()
    with cached_store() if shipped else BinaryTokenStore(chosen, store or MEMORY, progress_bar=bar) as tokens:
        tokens.write_documents(found)
        reader = BTRReader(token_store=tokens, **ANSWERS | {"top_k": answers})
        pipeline = question_pipeline(found, reader, top_k)
        put_question(pipeline, question)  # the first question pays for loading
        start = time.perf_counter()
        outputs = put_question(pipeline, question)
        milliseconds = 1e3 * (time.perf_counter() - start)
    if not outputs["answers"]:
        typer.echo("No answer: no word of the question occurs in the passages.")
        return
    table = empty_table("answer", "score", "passage")
    for answer in outputs["answers"]:
        title = answer.document.meta.get("title", "")
        table.add_row(Text(shown(answer.data)), f"{answer.score:.3f}", Text(shown(title)))
    result_console().print(Text(shown(question, None)), table)
    cache = outputs["cache"]
    typer.echo(f"{milliseconds:.0f} ms, {cache['hits']} passages from the store, {cache['misses']} encoded now")
