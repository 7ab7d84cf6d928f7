# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""`btr benchmark`: accuracy kept, bytes a token and speed of a reader's settings, on the same questions."""

import itertools
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from haystack import Document
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever
from rich.console import Console
from rich.table import Table

from btr_cli import evaluate
from btr_cli.demo import ordinary_reader
from btr_cli.evaluate import Asked, drawn
from btr_cli.pipelines import checked_source, filled
from btr_haystack.default import DEFAULT_MODEL
from btr_haystack.errors import DataError
from btr_haystack.squad import read_squad
from haystack_integrations.components.readers.btr import BinaryTokenStore, BTRReader

Task = list[tuple[Asked, list[Document]]]
ANSWERS: dict[str, Any] = {"top_k": 1, "no_answer": False, "max_answer_length": 30}
AGAIN = (1, 2, 3)  # documents that the teacher reads again
TIMED = 30  # questions that the ordinary reader, which is slow, is timed on


def benchmark(
    data: Annotated[Path, typer.Argument(help="SQuAD-format file, plain or gzip.")],
    teacher: Annotated[str, typer.Option(help="Folder of the teacher: percentages are of its F1.")],
    model: Annotated[str, typer.Option(help="BTR model: folder, hub id or the shipped one.")] = DEFAULT_MODEL,
    pareto: Annotated[bool, typer.Option("--pareto", help="Every setting, not the default one alone.")] = False,
    bits: Annotated[list[int] | None, typer.Option(min=0, help="Bits kept a token; may be given again.")] = None,
    kept_share: Annotated[list[float] | None, typer.Option(help="Share of windows read to the end; again.")] = None,
    second_read: Annotated[
        list[int] | None, typer.Option(min=0, help="Documents that the teacher reads again; may be given again.")
    ] = None,
    sample: Annotated[int, typer.Option(min=1, help="Questions, drawn with the seed.")] = 300,
    top_k: Annotated[int, typer.Option(min=1, help="Passages retrieved in the open task.")] = 10,
    seed: Annotated[int, typer.Option(help="Of the sample.")] = 0,
    output: Annotated[Path | None, typer.Option(help="JSON file for the figures.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Picture of the figures.")] = None,
) -> None:
    """
    One line a setting: F1 beside the teacher's, gold and open; bytes a token, all counted; milliseconds a question.
    """
    for path in (output, plot):
        if path and not path.parent.is_dir():
            msg = f"{path.parent}: no such folder for the figures"
            raise FileNotFoundError(msg)
    source, taught = checked_source(model), checked_source(teacher)
    paragraphs = read_squad(data)
    asked = drawn(paragraphs, sample, seed)
    if not asked:
        msg = f"{data} holds no question with an answer"
        raise DataError(msg)
    documents = [Document(content=text) for text in dict.fromkeys(paragraph.text for paragraph in paragraphs)]
    retriever = InMemoryBM25Retriever(filled(documents), top_k=top_k)
    tasks: dict[str, Task] = {
        "gold": [(one, [Document(content=one[0].text)]) for one in asked],
        "open": [(one, retriever.run(query=one[1].text)["documents"]) for one in asked],
    }
    base = {name: score(BTRReader(taught, **ANSWERS), task, f"teacher, {name}") for name, task in tasks.items()}
    ordinary_ms = milliseconds(ordinary_reader(source), tasks["open"][:TIMED])
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        whole = BinaryTokenStore(source, f"sqlite:///{folder}/whole.db")
        whole.write_documents(documents)
        most = whole.reader.bits
        for count, share, again in settings_of(most, pareto, bits, kept_share, second_read):
            store = BinaryTokenStore(source, f"sqlite:///{folder}/{count}.db", bits=count, progress_bar=False)
            store.copy_from(whole)
            reader = BTRReader(
                source, token_store=store, kept_share=share, second_model=taught if again else None, second_read=again,
                **ANSWERS,
            )  # fmt: skip
            label = f"{count} bits, {share:.0%} of the windows, {again} documents again"
            figures = {name: score(reader, task, f"{label}, {name}") for name, task in tasks.items()}
            ours_ms = milliseconds(reader, tasks["open"][:TIMED])
            rows.append(
                {
                    "bits": count,
                    "kept_share": share,
                    "second_read": again,
                    "bytes_a_token": store.report().bytes_per_token,
                }
                | {f"{name}_{figure}": value for name, one in figures.items() for figure, value in one.items()}
                | {f"{name}_of_teacher": figures[name]["f1"] / max(base[name]["f1"], 1e-9) for name in tasks}
                | {"ms": ours_ms, "times_faster": ordinary_ms / ours_ms}
            )
            store.close()
        whole.close()
    Console().print(as_table(rows, base))
    results = {"data": data.name, "questions": len(asked), "seed": seed, "top_k": top_k, "model": Path(source).name}
    results |= {"machine": machine(), "teacher": base, "ordinary_ms": ordinary_ms, "rows": rows}
    if output:
        output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if plot:
        draw(rows, plot)


def settings_of(
    most: int, pareto: bool, bits: list[int] | None, kept_share: list[float] | None, second_read: list[int] | None
) -> list[tuple[int, float, int]]:
    """
    Bits, share of the windows and documents read again of each setting; what is not asked for is as it is by default.

    Reading again is measured with all bits and all windows, where nothing else is asked for.
    """
    counts, shares = ((most, most // 2), (1.0, 0.5, 0.3)) if pareto else ((most,), (1.0,))
    chosen = list(itertools.product(bits or counts, kept_share or shares, second_read or (0,)))
    if pareto and not second_read:
        chosen += [(max(bits or counts), max(kept_share or shares), again) for again in AGAIN]
    return chosen


def score(reader: BTRReader, task: Task, label: str) -> dict[str, float]:
    """Mean exact match and F1 in percent."""
    reader.warm_up()
    given = {id(one): documents for one, documents in task}
    figures = evaluate.score(
        [one for one, _ in task],
        lambda one: evaluate.best(reader.run(query=one[1].text, documents=given[id(one)])),
        label,
    )
    return {name: figures[name] for name in ("em", "f1")}


def milliseconds(reader: Any, task: Task) -> float:
    """Median of whole `run` calls, the first left out."""
    seconds = []
    for (_, question), documents in [task[0], *task]:
        start = time.perf_counter()
        reader.run(query=question.text, documents=documents)
        seconds.append(time.perf_counter() - start)
    return 1e3 * statistics.median(seconds[1:])


def as_table(rows: list[dict[str, Any]], base: dict[str, dict[str, float]]) -> Table:
    """The figures for people."""
    title = f"teacher: F1 {base['gold']['f1']:.1f} gold, {base['open']['f1']:.1f} open"
    table = Table(
        "bits", "windows", "again", "bytes a token", "gold F1", "kept", "open F1", "kept", "ms", "faster", title=title
    )
    for row in rows:
        table.add_row(
            str(row["bits"]), f"{row['kept_share']:.0%}", str(row["second_read"]),
            f"{row['bytes_a_token']:.1f}", f"{row['gold_f1']:.1f}",
            f"{row['gold_of_teacher']:.1%}", f"{row['open_f1']:.1f}", f"{row['open_of_teacher']:.1%}",
            f"{row['ms']:.0f}", f"{row['times_faster']:.1f}x",
        )  # fmt: skip
    return table


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """
    Accuracy kept against speed: a line for the settings of each number of bits and of documents read again.

    :raises ImportError: without matplotlib.
    """
    try:
        import matplotlib as mpl
    except ImportError as error:
        msg = "the picture needs matplotlib: pip install 'btr-haystack[plot]'"
        raise ImportError(msg) from error
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for count in sorted({row["bits"] for row in rows}, reverse=True):
        ours = [row for row in rows if row["bits"] == count]
        stored = f"{count} bits, {ours[0]['bytes_a_token']:.0f} bytes a token"
        pruned = sorted((row for row in ours if not row["second_read"]), key=lambda row: row["kept_share"])
        most = max(row["kept_share"] for row in ours)
        again = sorted((row for row in ours if row["kept_share"] == most), key=lambda row: row["second_read"])
        [line] = axes.plot(*_places(pruned), "o-", label=stored)
        if len(again) > 1:
            axes.plot(*_places(again), "s--", color=line.get_color(), label="the best documents read again")
        for row in ours:
            note = f"{row['second_read']} again" if row["second_read"] else f"{row['kept_share']:.0%}"
            axes.annotate(note, (row["times_faster"], 100 * row["open_of_teacher"]), (5, 4), textcoords="offset points")
    axes.axhline(100, color="grey", linewidth=0.8)
    axes.set(xlabel="times faster than the ordinary reader", ylabel="F1 kept, open task (%)")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=160)
    plt.close(figure)


def _places(rows: list[dict[str, Any]]) -> tuple[list[float], list[float]]:
    return [row["times_faster"] for row in rows], [100 * row["open_of_teacher"] for row in rows]


def machine() -> str:
    """What the figures were measured on."""
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    return f"{model}, {os.cpu_count()} cores, torch {torch.__version__}"
