# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""`btr evaluate`: exact match and F1 of a reader beside its teacher, on the same questions."""

from pathlib import Path
from typing import Annotated, Any

import typer

from btr_cli.figures import check_output
from btr_cli.pipelines import LONGEST_ANSWER
from btr_cli.squad import SquadSettings, evaluate_squad
from btr_cli.tasks import TaskSettings, evaluate_task
from btr_cli.terminal import readable
from btr_haystack.default import DEFAULT_MODEL, model_source
from btr_haystack.merge import MOST_MERGED
from btr_haystack.metrics import LANGUAGES, known_language
from btr_haystack.stores import MEMORY
from btr_haystack.tasks import TASKS as PAPER_TASKS
from haystack_integrations.components.readers.btr.btr_generative_reader import QUERY

TASKS = ("gold", "open", "no-answer")
TOP_K = 10
FOUND_ONLY = ("--retrieval-weight", "--second-read", "--max-answer-length")


def evaluate(
    data: Annotated[Path, typer.Argument(help="SQuAD (rows, too), or the file of another task: JSON, gzip, Parquet.")],
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
    passages: Annotated[
        Path | None, typer.Option(help="Passages of another task (TSV); default: those of the file.")
    ] = None,
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
    language: Annotated[
        str | None,
        typer.Option(
            help=f"Answers are compared as MLQA does: {', '.join(LANGUAGES)}. Default: as SQuAD's script, in English."
        ),
    ] = None,
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
    language = None if language is None else known_language(language)
    check_output(output, data, passages)
    prompt = readable(prompt) if prompt else None
    teacher = model_source(teacher) if teacher else None
    models = tuple(map(model_source, model or [DEFAULT_MODEL]))
    if task != "squad":
        asked_for = TaskSettings(
            task, str(data), str(passages) if passages else None, models, teacher, writes, sample, seed, top_k,
            prompt or PAPER_TASKS[task].prompt, store or MEMORY, {"kept_share": kept_share, **merging}, language,
        )  # fmt: skip
        evaluate_task(asked_for, output)
        return
    parts = ("gold", "open") if mode == "both" else (mode,)
    asked = SquadSettings(
        data=data, parts=parts, models=models, teacher=teacher, sample=sample, open_sample=open_sample, seed=seed,
        top_k=top_k, bits=bits, coded_share=coded_share, kept_share=kept_share,
        prompt=(prompt or QUERY) if writes else None, merging=merging if writes else {},
        max_answer_length=max_answer_length, retrieval_weight=retrieval_weight, second_read=second_read,
        language=language,
    )  # fmt: skip
    evaluate_squad(asked, output)
