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
from dataclasses import dataclass
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
from btr_haystack.reader import SplitReader
from btr_haystack.squad import read_squad
from haystack_integrations.components.readers.btr import BinaryTokenStore, BTRReader

Task = list[tuple[Asked, list[Document]]]
ANSWERS: dict[str, Any] = {"top_k": 1, "no_answer": False, "max_answer_length": 30}
CODED = (1.0, 0.67, 0.5)  # shares of the tokens that keep bits
PRUNED = (0.5, 0.3)  # shares of the windows
AGAIN = (1, 2, 3)  # documents that the teacher reads again
TIMED = 30  # questions that the ordinary reader, which is slow, is timed on


def benchmark(
    data: Annotated[Path, typer.Argument(help="SQuAD-format file, plain or gzip.")],
    teacher: Annotated[str, typer.Option(help="Folder of the teacher: percentages are of its F1.")],
    model: Annotated[str, typer.Option(help="BTR model: folder, hub id or the shipped one.")] = DEFAULT_MODEL,
    pareto: Annotated[bool, typer.Option("--pareto", help="Every setting, not the default one alone.")] = False,
    bits: Annotated[list[int] | None, typer.Option(min=0, help="Bits kept a token; may be given again.")] = None,
    coded_share: Annotated[
        list[float] | None, typer.Option(min=0, max=1, help="Share of the tokens that keep bits; may be given again.")
    ] = None,
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
        encoded: dict[float, BinaryTokenStore] = {}
        own = SplitReader.from_pretrained(source)
        knobs = Knobs(own.bits, own.coded_share, bits, coded_share, kept_share, second_read)
        for count, coded, share, again in knobs.settings(pareto):
            if coded not in encoded:
                encoded[coded] = BinaryTokenStore(source, f"sqlite:///{folder}/whole-{coded}.db", coded_share=coded)
                encoded[coded].write_documents(documents)
            url = f"sqlite:///{folder}/{count}-{coded}.db"
            store = BinaryTokenStore(source, url, bits=count, coded_share=coded, progress_bar=False)
            store.copy_from(encoded[coded])
            reader = BTRReader(
                source, token_store=store, kept_share=share, second_model=taught if again else None, second_read=again,
                **ANSWERS,
            )  # fmt: skip
            label = f"{count} bits for {coded:.0%}, {share:.0%} of the windows, {again} documents again"
            figures = {name: score(reader, task, f"{label}, {name}") for name, task in tasks.items()}
            ours_ms = milliseconds(reader, tasks["open"][:TIMED])
            rows.append(
                {
                    "bits": count,
                    "coded_share": coded,
                    "kept_share": share,
                    "second_read": again,
                    "bytes_a_token": store.report().bytes_per_token,
                }
                | {f"{name}_{figure}": value for name, one in figures.items() for figure, value in one.items()}
                | {f"{name}_of_teacher": figures[name]["f1"] / max(base[name]["f1"], 1e-9) for name in tasks}
                | {"ms": ours_ms, "times_faster": ordinary_ms / ours_ms}
            )
            store.close()
        for store in encoded.values():
            store.close()
    Console().print(as_table(rows, base))
    results = {"data": data.name, "questions": len(asked), "seed": seed, "top_k": top_k, "model": Path(source).name}
    results |= {"machine": machine(), "teacher": base, "ordinary_ms": ordinary_ms, "rows": rows}
    if output:
        output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if plot:
        draw(rows, plot)


@dataclass(frozen=True)
class Knobs:
    """
    Settings to be measured.

    :param most: bits of the model.
    :param own_share: its own share of the tokens that keep bits.
    :param bits: asked for; None for those of a default, here as below.
    :param coded_share: shares of the tokens that keep bits.
    :param kept_share: shares of the windows that are read to the end.
    :param second_read: documents read again.
    """

    most: int
    own_share: float
    bits: list[int] | None
    coded_share: list[float] | None
    kept_share: list[float] | None
    second_read: list[int] | None

    def settings(self, pareto: bool) -> list[tuple[int, float, float, int]]:
        """
        Bits, share of the tokens that keep them, share of the windows and documents read again of each setting.

        :param pareto: several of what is not asked for, one after another, and not as it is by default alone.
        """
        if not pareto:
            asked = (self.bits, self.coded_share, self.kept_share, self.second_read)
            default: tuple[Any, ...] = (self.most, self.own_share, 1.0, 0)
            return list(itertools.product(*(one or [usual] for one, usual in zip(asked, default, strict=True))))
        bits = self.bits or [self.most, self.most // 2]
        base = (max(bits), self.own_share)
        stored = dict.fromkeys([base, *itertools.product(bits, self.coded_share or CODED)])
        pruned = [(*base, share, 0) for share in self.kept_share or PRUNED]
        again = [(*base, 1.0, count) for count in self.second_read or AGAIN]
        return [*((*one, 1.0, 0) for one in stored), *pruned, *again]


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
        "bits",
        "coded",
        "windows",
        "again",
        "bytes a token",
        "gold F1",
        "kept",
        "open F1",
        "kept",
        "ms",
        "faster",
        title=title,
    )
    for row in rows:
        table.add_row(
            str(row["bits"]), f"{row['coded_share']:.0%}", f"{row['kept_share']:.0%}", str(row["second_read"]),
            f"{row['bytes_a_token']:.1f}", f"{row['gold_f1']:.1f}",
            f"{row['gold_of_teacher']:.1%}", f"{row['open_f1']:.1f}", f"{row['open_of_teacher']:.1%}",
            f"{row['ms']:.0f}", f"{row['times_faster']:.1f}x",
        )  # fmt: skip
    return table


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """
    Accuracy kept against bytes a token, of the settings of the store, and against speed, of those of the reader.

    :raises ImportError: without matplotlib.
    """
    try:
        import matplotlib as mpl
    except ImportError as error:
        msg = "the picture needs matplotlib: pip install 'btr-haystack[plot]'"
        raise ImportError(msg) from error
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (storage, speed) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained", sharey=True)
    base = rows[0]
    stored = [row for row in rows if row["kept_share"] == 1 and not row["second_read"]]
    for count, marker in zip(sorted({row["bits"] for row in stored}, reverse=True), "osD^v<>", strict=False):
        ours = sorted((row for row in stored if row["bits"] == count), key=lambda row: row["bytes_a_token"])
        for task, style in (("gold", "-"), ("open", "--")):
            kept = [100 * row[f"{task}_of_teacher"] for row in ours]
            storage.plot([row["bytes_a_token"] for row in ours], kept, style + marker, label=f"{count} bits, {task}")
        for row in ours:
            place = (row["bytes_a_token"], 100 * row["gold_of_teacher"])
            storage.annotate(f"{row['coded_share']:.0%}", place, (5, 4), textcoords="offset points")
    storage.set(xlabel="bytes a token, everything counted", ylabel="F1 kept (%)")
    same = [row for row in rows if (row["bits"], row["coded_share"]) == (base["bits"], base["coded_share"])]
    for name, knob, label in (("kept_share", "second_read", "windows pruned"), ("second_read", "kept_share", "again")):
        ours = sorted((row for row in same if row[knob] == base[knob]), key=lambda row: row["times_faster"])
        faster = [row["times_faster"] for row in ours]
        for task, style in (("gold", "-"), ("open", "--")):
            kept = [100 * row[f"{task}_of_teacher"] for row in ours]
            speed.plot(faster, kept, style + "o", label=f"{label}, {task}")
        for row in ours:
            note = f"{row[name]} again" if name == "second_read" else f"{row[name]:.0%}"
            place = (row["times_faster"], 100 * row["open_of_teacher"])
            speed.annotate(note, place, (5, 4), textcoords="offset points")
    speed.set(xlabel="times faster than the ordinary reader")
    for axes in (storage, speed):
        axes.axhline(100, color="grey", linewidth=0.8)
        axes.legend(frameon=False, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=160)
    plt.close(figure)


def machine() -> str:
    """What the figures were measured on."""
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    return f"{model}, {os.cpu_count()} cores, torch {torch.__version__}"
