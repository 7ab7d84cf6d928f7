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
from haystack import Document
from rich.console import Console
from rich.progress import track

from btr_cli.answers import Answer, Journal, as_markdown, as_table, best, bytes_a_token, journal_beside, means
from btr_cli.pipelines import checked_source, keeps, put_question, question_pipeline, sampled
from btr_cli.tasks import TaskSettings, evaluate_task
from btr_haystack.default import DEFAULT_MODEL
from btr_haystack.errors import DataError
from btr_haystack.merge import MOST_MERGED
from btr_haystack.metrics import best_threshold, exact_match, f1
from btr_haystack.squad import Paragraph, Question, read_squad
from btr_haystack.stores import MEMORY
from btr_haystack.tasks import TASKS as PAPER_TASKS
from haystack_integrations.components.readers.btr import BinaryTokenStore, BTRGenerativeReader, BTRReader
from haystack_integrations.components.readers.btr.btr_generative_reader import QUERY

Asked = tuple[Paragraph, Question]
Ask = Callable[[Asked], dict[str, Any]]  # gives a reader's outputs

TASKS = ("gold", "open", "no-answer")
LONGEST_ANSWER = 30
TOP_K = 10
COLUMNS = (
    "task",
    "model",
    "questions",
    "EM",
    "F1",
    "of teacher's F1",
    "passages",
    "ms a question",
    "hits",
    "bytes a token",
)
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
    top_k: Annotated[int, typer.Option(min=1, help="Passages retrieved in the open task.")] = TOP_K,
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
        typer.Option(help="JSON file for the figures; a table and the answers stand beside it, to go on from."),
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
    for option, given in {"--open-sample": open_sample, "--top-k": top_k != TOP_K}.items():
        if given and task == "squad" and mode in ("gold", "no-answer"):
            msg = f"{option} has no meaning in mode {mode}, in which nothing is retrieved"
            raise ValueError(msg)
    if second_read and not teacher:
        msg = f"--second-read is {second_read}, but there is no --teacher to read again"
        raise ValueError(msg)
    if output and output.suffix in (".md", ".jsonl"):
        msg = f"--output is {output}, but a table and answers are written beside it, as .md and .jsonl; expected .json"
        raise ValueError(msg)
    if output and not output.parent.is_dir():
        msg = f"{output.parent}: no such folder for the figures"
        raise FileNotFoundError(msg)
    teacher = checked_source(teacher) if teacher else None
    models = tuple(map(checked_source, model or [DEFAULT_MODEL]))
    if task != "squad":
        asked_for = TaskSettings(
            task, str(data), str(passages) if passages else None, models, teacher, writes, sample, seed, top_k,
            prompt or PAPER_TASKS[task].prompt, store or MEMORY, {"kept_share": kept_share, **merging},
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
    told: dict[str, Any] = {"data": data.name, "seed": seed, "top_k": top_k, "bits": bits, "kept_share": kept_share}
    told |= {"coded_share": coded_share, "writes": writes, "prompt": (prompt or QUERY) if writes else None}
    told |= merging if writes else {"max_answer_length": max_answer_length}
    told |= {"retrieval_weight": retrieval_weight, "second_read": second_read}
    parts = ("gold", "open") if mode == "both" else (mode,)
    sizes = {part: open_sample if part == "open" and open_sample else sample for part in parts}
    questions = {part: drawn(paragraphs, size, seed, unanswerable=part == "no-answer") for part, size in sizes.items()}
    everyone = [*([(teacher, True)] if teacher else []), *((name, False) for name in models)]
    searched = corpus(paragraphs)
    journal = journal_beside(output, told, [*questions.values()], [name for name, _ in everyone], searched)
    rows: list[dict[str, Any]] = []
    for part, asked in questions.items():
        for name, is_teacher in everyone:
            kept = None
            cut = bits is not None or coded_share is not None or merged_share
            if not is_teacher and (keeps(name) or cut):
                kept = BinaryTokenStore(
                    name, MEMORY, bits=bits, coded_share=coded_share, merged_share=merged_share
                )  # fmt: skip
            reader: BTRReader | BTRGenerativeReader
            if writes:
                knobs: dict[str, Any] = {}
                if not is_teacher:
                    knobs = {"kept_share": kept_share, "merged_inside": merged_inside, "merged_across": merged_across}
                reader = BTRGenerativeReader(name, token_store=kept, prompt=prompt or QUERY, **knobs)
            else:
                settings: dict[str, Any] = {"top_k": 1, "no_answer": False}
                settings |= {"max_answer_length": max_answer_length or None, "retrieval_weight": retrieval_weight}
                if not is_teacher:
                    again = {"second_model": teacher if second_read else None, "second_read": second_read}
                    settings |= {"kept_share": kept_share, **again}
                reader = BTRReader(name, token_store=kept, **settings)
            reader.warm_up()
            ask = on_retrieved(reader, searched, top_k) if part == "open" else on_gold(reader)
            answers = answered(asked, ask, name, teacher=is_teacher, task=part, journal=journal)
            judge = score_with_threshold if part == "no-answer" else score
            row = {"task": part, "model": Path(name).name, "teacher": is_teacher, **judge(asked, answers)}
            rows.append(row | {"bytes_a_token": bytes_a_token(reader, row, told, output)})
            reader.close()
    base = {row["task"]: row for row in rows if row["teacher"]}
    for row in rows:
        if row["task"] in base and base[row["task"]]["f1"]:
            row["share_of_teacher_f1"] = row["f1"] / base[row["task"]]["f1"]
    title, lines = f"{data.name}, seed {seed}", [cells(row) for row in rows]
    Console().print(as_table(COLUMNS, lines, title))
    if output:
        output.write_text(json.dumps({**told, "rows": rows}, indent=1) + "\n", encoding="utf-8")
        output.with_suffix(".md").write_text(as_markdown(COLUMNS, lines, title), encoding="utf-8")


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

    def ask(asked: Asked) -> dict[str, Any]:
        return reader.run(query=asked[1].text, documents=[Document(content=asked[0].text)])

    return ask


def corpus(paragraphs: list[Paragraph]) -> list[Document]:
    """What is searched: all paragraphs of the file, each once."""
    return [Document(content=text) for text in dict.fromkeys(paragraph.text for paragraph in paragraphs)]


def on_retrieved(reader: BTRReader | BTRGenerativeReader, documents: list[Document], top_k: int) -> Ask:
    """Answers from the documents that BM25 finds, in a Haystack pipeline."""
    pipeline = question_pipeline(documents, reader, top_k)

    def ask(asked: Asked) -> dict[str, Any]:
        return put_question(pipeline, asked[1].text)

    return ask


def answered(
    asked: list[Asked], ask: Ask, model: str, *, teacher: bool = False, task: str = "", journal: Journal | None = None
) -> list[Answer]:
    """
    An answer to each question.

    :param asked: the questions.
    :param ask: gives the outputs of a reader.
    :param model: its folder or hub id.
    :param teacher: whether it stands in as the teacher.
    :param task: what it is asked for.
    :param journal: has the answers that were given already, and gets the others.
    """
    journal = journal or Journal(None, {})
    answers = []
    for number, one in enumerate(track(asked, description=f"{task} {Path(model).name}".strip())):
        key = (model, teacher, task, number)
        if key not in journal.done:
            start = time.perf_counter()
            outputs = ask(one)
            ms = 1e3 * (time.perf_counter() - start)
            text, certainty = best(outputs)
            cache = outputs["cache"]
            count = sum(cache.values())
            journal.add(Answer(*key, one[1].id, text, certainty, ms, hits=cache["hits"], passages=count))
        answers.append(journal.done[key])
    return answers


def score(asked: list[Asked], answers: list[Answer]) -> dict[str, Any]:
    """Mean exact match and F1 in percent, and what `means` gives."""
    count = max(len(asked), 1)
    golds = [[text for text, _ in question.answers] for _, question in asked]
    matches = sum(exact_match(answer.text, gold) for answer, gold in zip(answers, golds, strict=True))
    overlaps = sum(f1(answer.text, gold) for answer, gold in zip(answers, golds, strict=True))
    return {"em": 100 * matches / count, "f1": 100 * overlaps / count, **means(answers)}


def score_with_threshold(asked: list[Asked], answers: list[Answer]) -> dict[str, Any]:
    """Best exact match and F1 in percent where answers below one threshold count as none given (SQuAD 2.0)."""
    golds = [[text for text, _ in question.answers] for _, question in asked]
    answerable = [bool(one) for one in golds]
    scores = [answer.score for answer in answers]
    figures: dict[str, Any] = {"unanswerable": answerable.count(False)}
    for name, metric in (("em", exact_match), ("f1", f1)):
        values = [metric(answer.text, one) for answer, one in zip(answers, golds, strict=True)]
        mean, threshold = best_threshold(scores, values, answerable)
        figures |= {name: 100 * mean, f"{name}_threshold": threshold if math.isfinite(threshold) else None}
    return {**figures, **means(answers)}


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """A row's figures as text, in the order of `COLUMNS`."""
    share = f"{row['share_of_teacher_f1']:.1%}" if "share_of_teacher_f1" in row else ""
    size = "" if row["bytes_a_token"] is None else f"{row['bytes_a_token']:.1f}"
    return (
        row["task"], row["model"], str(row["questions"]), f"{row['em']:.2f}", f"{row['f1']:.2f}", share,
        f"{row['passages']:.1f}", f"{row['ms']:.0f}", f"{row['hits']:.0%}", size,
    )  # fmt: skip
