# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""`btr ask`: one question to a set of documents."""

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from btr_cli.corpus import cached_store_url, read_documents, shipped_documents
from btr_cli.pipelines import put_question, question_pipeline
from haystack_integrations.components.readers.btr import BinaryTokenStore, BTRReader


def ask(
    question: Annotated[str, typer.Argument(help="What you want to know.")],
    documents: Annotated[
        Path | None, typer.Option(help="JSON lines with text and title; default: the shipped Wikipedia passages.")
    ] = None,
    store: Annotated[str | None, typer.Option(help="Url of the store, such as sqlite:///passages.db.")] = None,
    model: Annotated[str | None, typer.Option(help="Folder or hub id of a reader; default: the shipped one.")] = None,
    top_k: Annotated[int, typer.Option(help="Passages retrieved.")] = 10,
    answers: Annotated[int, typer.Option(help="Answers shown.")] = 3,
) -> None:
    """
    Ask a question; passages are encoded the first time and read from their bits from then on.
    """
    found = read_documents(documents) if documents else shipped_documents()
    url = store or (cached_store_url("wikipedia.db") if documents is None and model is None else "memory://")
    chosen = {"model": model} if model else {}
    with BinaryTokenStore(url=url, **chosen) as tokens:
        tokens.write_documents(found)
        reader = BTRReader(**chosen, top_k=answers, no_answer=False, token_store=tokens)
        pipeline = question_pipeline(found, reader, top_k)
        put_question(pipeline, question)  # the first question pays for loading
        start = time.perf_counter()
        outputs = put_question(pipeline, question)
        milliseconds = 1e3 * (time.perf_counter() - start)
    table = Table(title=question, caption=f"{milliseconds:.0f} ms, {outputs['cache']['hits']} passages from the store")
    for name in ("answer", "score", "passage"):
        table.add_column(name)
    for answer in outputs["answers"]:
        table.add_row(answer.data, f"{answer.score:.3f}", answer.document.meta.get("title", ""))
    Console().print(table)
