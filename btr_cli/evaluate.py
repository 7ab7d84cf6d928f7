# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""`btr evaluate`: exact match and F1 of a reader beside its teacher, on the same questions."""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from haystack import Document, ExtractedAnswer
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from btr_cli.pipelines import checked_source, put_question, question_pipeline, sampled
from btr_cli.tasks import TaskSettings, evaluate_task
from btr_haystack.default import DEFAULT_MODEL
from btr_haystack.errors import DataError
from btr_haystack.merge import MOST_MERGED
from btr_haystack.metrics import best_threshold, exact_match, f1
from btr_haystack.squad import Paragraph, Question, read_squad
from btr_haystack.tasks import TASKS as PAPER_TASKS
from haystack_integrations.components.readers.btr import BinaryTokenStore, BTRGenerativeReader, BTRReader
from haystack_integrations.components.readers.btr.btr_generative_reader import QUERY

Asked = tuple[Paragraph, Question]
Ask = Callable[[Asked], tuple[str, float]]  # gives an answer, empty for none, and its score

TASKS = ("gold", "open", "no-answer")
LONGEST_ANSWER = 30
FOUND_ONLY = ("--retrieval-weight", "--second-read", "--max-answer-length")


def evaluate(
    data: Annotated[Path, typer.Argument(help="SQuAD-format file, or the file of another task, plain or gzip.")],
    model: Annotated[
        list[str] | None, typer.Option(help="Reader; may be given again. Default: the shipped one.")
    ] = None,
    teacher: Annotated[str | None, typer.Option(help="Folder of the teacher: percentages are of its figures.")] = None,
    mode: Annotated[
        str, typer.Option(help="gold (the question's paragraph), open (BM25 over all), both, or no-answer (SQuAD 2).")
    ] = "both",
    sample: Annotated[int | None, typer.Option(min=1, help="Questions, drawn with the seed; default: all.")] = None,
    open_sample: Annotated[
        int | None, typer.Option(min=1, help="Questions of the open task; default: as sample.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the sample.")] = 0,
    top_k: Annotated[int, typer.Option(min=1, help="Passages retrieved in the open task.")] = 10,
    max_answer_length: Annotated[
        int, typer.Option(min=0, help="Most tokens of an answer; 0: no limit.")
    ] = LONGEST_ANSWER,
    bits: Annotated[int | None, typer.Option(min=0, help="Bits kept a token; default: the model's own.")] = None,
    coded_share: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share of the tokens that keep bits; default: the model's own.")
    ] = None,
    kept_share: Annotated[
        float | None, typer.Option(help="Share of the windows that are read to the end; default: the model's.")
    ] = None,
    retrieval_weight: Annotated[
        float, typer.Option(min=0, help="Open task: how much BM25's scores count, the teacher included.")
    ] = 0.0,
    second_read: Annotated[
        int, typer.Option(min=0, help="Documents that the teacher reads again after a BTR reader.")
    ] = 0,
    output: Annotated[
        Path | None,
        typer.Option(help="JSON file for the figures; other tasks: a table and the answers beside it, to go on from."),
    ] = None,
    task: Annotated[str, typer.Option(help=f"squad, {', '.join(PAPER_TASKS)}.")] = "squad",
    passages: Annotated[Path | None, typer.Option(help="Passages of another task (id, text, title; TSV).")] = None,
    writes: Annotated[bool, typer.Option("--writes", help="Answers are written by the decoder, not found.")] = False,
    prompt: Annotated[
        str | None,
        typer.Option(
            help="With --writes: what is asked, around {query}; default: that of the task, {query} alone for squad."
        ),
    ] = None,
    merged_share: Annotated[
        float, typer.Option(min=0, max=MOST_MERGED, help="With --writes: share of the tokens merged in the store.")
    ] = 0.0,
    merged_inside: Annotated[
        float, typer.Option(min=0, max=MOST_MERGED, help="With --writes: share merged after each upper layer.")
    ] = 0.0,
    merged_across: Annotated[
        float, typer.Option(min=0, max=MOST_MERGED, help="With --writes: share merged before the decoder and in it.")
    ] = 0.0,
    store: Annotated[str | None, typer.Option(help="Other tasks: url of the store; default: in memory.")] = None,
) -> None:
    """
    Exact match and F1, gold and open, of readers and their teacher on the same questions; or another task's score.
    """
    if task not in ("squad", *PAPER_TASKS):
        msg = f"task is {task!r}; expected squad, {', '.join(PAPER_TASKS)}"
        raise ValueError(msg)
    squad_only: dict[str, Any] = {"--mode": mode != "both", "--open-sample": open_sample, "--bits": bits is not None}
    squad_only["--coded-share"] = coded_share is not None
    squad_only |= {
        "--retrieval-weight": retrieval_weight,
        "--second-read": second_read,
        "--max-answer-length": max_answer_length != LONGEST_ANSWER,
    }
    others_only = {"--passages": passages, "--store": store}
    for option, given in (others_only if task == "squad" else squad_only).items():
        if given:
            msg = f"{option} has no meaning for task {task}"
            raise ValueError(msg)
    if mode not in (*TASKS, "both"):
        msg = f"mode is {mode!r}; expected {', '.join(TASKS)} or both"
        raise ValueError(msg)
    if prompt and not writes:
        msg = f"--prompt is {prompt!r}, but nothing is written; give --writes, too"
        raise ValueError(msg)
    spans_only = {name: squad_only[name] for name in FOUND_ONLY} | {"--mode no-answer": mode == "no-answer"}
    for option, given in spans_only.items():
        if given and writes:
            msg = f"{option} has no meaning where answers are written (--writes)"
            raise ValueError(msg)
    merging = {"merged_share": merged_share, "merged_inside": merged_inside, "merged_across": merged_across}
    for name, value in merging.items() if not writes else ():
        if value:
            msg = f"--{name.replace('_', '-')} is {value}, but nothing is written; give --writes, too"
            raise ValueError(msg)
    if retrieval_weight and mode in ("gold", "no-answer"):
        msg = f"--retrieval-weight is {retrieval_weight}, but nothing is retrieved in mode {mode}"
        raise ValueError(msg)
    if second_read and not teacher:
        msg = f"--second-read is {second_read}, but there is no --teacher to read again"
        raise ValueError(msg)
    if output and not output.parent.is_dir():
        msg = f"{output.parent}: no such folder for the figures"
        raise FileNotFoundError(msg)
    teacher = checked_source(teacher) if teacher else None
    names = [*([teacher] if teacher else []), *map(checked_source, model or [DEFAULT_MODEL])]
    if task != "squad":
        corpus = str(passages) if passages else None
        asked_for = TaskSettings(
            task, str(data), corpus, tuple(names), teacher, writes, sample, seed, top_k,
            prompt or PAPER_TASKS[task].prompt, store or "memory://", {"kept_share": kept_share, **merging},
        )  # fmt: skip
        evaluate_task(asked_for, output)
        return
    paragraphs = read_squad(data)
    if not drawn(paragraphs, None, seed):
        msg = f"{data} holds no question with an answer"
        raise DataError(msg)
    if mode == "no-answer" and all(question.answers for paragraph in paragraphs for question in paragraph.questions):
        msg = f"{data} holds no question without an answer; mode no-answer needs a file like those of SQuAD 2"
        raise DataError(msg)
    rows: list[dict[str, Any]] = []
    for part in ("gold", "open") if mode == "both" else (mode,):
        size = open_sample if part == "open" and open_sample else sample
        asked = drawn(paragraphs, size, seed, unanswerable=part == "no-answer")
        for name in names:
            cut = None
            if name != teacher and (bits is not None or coded_share is not None or merged_share):
                kept: dict[str, Any] = {"bits": bits, "coded_share": coded_share, "merged_share": merged_share}
                cut = BinaryTokenStore(name, "memory://", **kept)
            reader: BTRReader | BTRGenerativeReader
            if writes:
                knobs: dict[str, Any] = {}
                if name != teacher:
                    knobs = {"kept_share": kept_share, "merged_inside": merged_inside, "merged_across": merged_across}
                reader = BTRGenerativeReader(name, token_store=cut, prompt=prompt or QUERY, **knobs)
            else:
                settings: dict[str, Any] = {"top_k": 1, "no_answer": False}
                settings |= {"max_answer_length": max_answer_length or None, "retrieval_weight": retrieval_weight}
                if name != teacher:
                    again = {"second_model": teacher if second_read else None, "second_read": second_read}
                    settings |= {"kept_share": kept_share, **again}
                reader = BTRReader(name, token_store=cut, **settings)
            reader.warm_up()
            ask = on_retrieved(reader, paragraphs, top_k) if part == "open" else on_gold(reader)
            who = {"task": part, "model": Path(name).name, "teacher": name == teacher}
            judge = score_with_threshold if part == "no-answer" else score
            rows.append({**who, **judge(asked, ask, f"{part} {Path(name).name}")})
            reader.close()
    base = {row["task"]: row for row in rows if row["teacher"]}
    for row in rows:
        if row["task"] in base and base[row["task"]]["f1"]:
            row["share_of_teacher_f1"] = row["f1"] / base[row["task"]]["f1"]
    Console().print(as_table(rows, escape(f"{data.name}, seed {seed}")))
    if output:
        figures = {"data": data.name, "seed": seed, "top_k": top_k, "bits": bits, "kept_share": kept_share}
        figures |= {"coded_share": coded_share, "writes": writes, "prompt": (prompt or QUERY) if writes else None}
        figures |= merging if writes else {}
        figures |= {"retrieval_weight": retrieval_weight, "second_read": second_read, "rows": rows}
        output.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def drawn(paragraphs: list[Paragraph], sample: int | None, seed: int, *, unanswerable: bool = False) -> list[Asked]:
    """
    The answerable questions with their paragraphs, or a sample of them; neighbours stay together.

    :param sample: number of questions; None for all.
    :param seed: of the choice.
    :param unanswerable: take the others, too.
    """
    asked = [
        (paragraph, question) for paragraph in paragraphs for question in paragraph.questions
        if question.answers or unanswerable
    ]  # fmt: skip
    return sampled(asked, sample, seed)


def on_gold(reader: BTRReader | BTRGenerativeReader) -> Ask:
    """Answers from the question's own paragraph."""

    def ask(asked: Asked) -> tuple[str, float]:
        return best(reader.run(query=asked[1].text, documents=[Document(content=asked[0].text)]))

    return ask


def on_retrieved(reader: BTRReader | BTRGenerativeReader, paragraphs: list[Paragraph], top_k: int) -> Ask:
    """Answers from the paragraphs that BM25 finds among all of the file, in a Haystack pipeline."""
    documents = [Document(content=text) for text in dict.fromkeys(paragraph.text for paragraph in paragraphs)]
    pipeline = question_pipeline(documents, reader, top_k)

    def ask(asked: Asked) -> tuple[str, float]:
        return best(put_question(pipeline, asked[1].text))

    return ask


def best(outputs: dict[str, Any]) -> tuple[str, float]:
    """The text of a reader's first answer and its score; the empty text where there is none."""
    if not outputs["answers"]:
        return "", -math.inf
    first = outputs["answers"][0]
    return first.data or "", first.score if isinstance(first, ExtractedAnswer) else first.meta["score"]


def score(asked: list[Asked], ask: Ask, label: str) -> dict[str, Any]:
    """Mean exact match and F1 in percent, and milliseconds a question."""
    matches, overlaps = 0.0, 0.0
    start = time.perf_counter()
    for one in track(asked, description=label):
        golds = [text for text, _ in one[1].answers]
        prediction, _ = ask(one)
        matches += exact_match(prediction, golds)
        overlaps += f1(prediction, golds)
    count = max(len(asked), 1)
    seconds = time.perf_counter() - start
    return {
        "questions": len(asked),
        "em": 100 * matches / count,
        "f1": 100 * overlaps / count,
        "ms": 1e3 * seconds / count,
    }


def score_with_threshold(asked: list[Asked], ask: Ask, label: str) -> dict[str, Any]:
    """Best exact match and F1 in percent where answers below one threshold count as none given (SQuAD 2.0)."""
    start = time.perf_counter()
    found = [ask(one) for one in track(asked, description=label)]
    seconds = time.perf_counter() - start
    golds = [[text for text, _ in question.answers] for _, question in asked]
    answerable = [bool(one) for one in golds]
    scores = [score for _, score in found]
    figures: dict[str, Any] = {"questions": len(asked), "unanswerable": answerable.count(False)}
    for name, metric in (("em", exact_match), ("f1", f1)):
        values = [metric(text, one) for (text, _), one in zip(found, golds, strict=True)]
        mean, threshold = best_threshold(scores, values, answerable)
        figures |= {name: 100 * mean, f"{name}_threshold": threshold if math.isfinite(threshold) else None}
    return {**figures, "ms": 1e3 * seconds / max(len(asked), 1)}


def as_table(rows: list[dict[str, Any]], title: str) -> Table:
    """The figures for people."""
    table = Table(title=title)
    for name in ("task", "model", "questions", "EM", "F1", "of teacher's F1", "ms a question"):
        table.add_column(name, justify="left" if name in ("task", "model") else "right")
    for row in rows:
        share = f"{100 * row['share_of_teacher_f1']:.1f} %" if "share_of_teacher_f1" in row else ""
        numbers = (str(row["questions"]), f"{row['em']:.2f}", f"{row['f1']:.2f}", share, f"{row['ms']:.1f}")
        table.add_row(row["task"], escape(Path(row["model"]).name), *numbers)
    return table
