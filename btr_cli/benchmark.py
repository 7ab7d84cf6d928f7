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
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from haystack import Document
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever
from rich.table import Table

from btr_cli.demo import ordinary_reader
from btr_cli.figures import check_output, empty_table
from btr_cli.pipelines import ANSWERS, Reader, filled, keeps
from btr_cli.squad import Asked, answered, corpus, drawn
from btr_cli.squad import score as scored
from btr_cli.terminal import readable, result_console, shows_progress
from btr_haystack.config import BTRConfig
from btr_haystack.default import DEFAULT_MODEL, model_source
from btr_haystack.errors import DataError, ModelError
from btr_haystack.model_files import config_of
from btr_haystack.squad import read_squad
from btr_haystack.training.stages import fast_bf16
from haystack_integrations.components.readers.btr import BinaryTokenStore, BTRReader
from haystack_integrations.components.readers.btr._checks import check_kept_share

KNOBS = ("bits", "coded_share", "kept_share", "second_read", "dtype")
Task = list[tuple[Asked, list[Document]]]
FLOAT = "float32"
INT8 = "int8"
DTYPES = {FLOAT, "bfloat16", "float16", INT8}
PARETO: dict[str, list[Any]] = {
    "coded_share": [1.0, 0.75, 0.54],
    "kept_share": [1.0, 0.5, 0.3],
    "second_read": [1, 2, 3],
}
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
    dtype: Annotated[
        list[str] | None, typer.Option(help="In which the reader computes: float32, bfloat16, float16, int8; again.")
    ] = None,
    sample: Annotated[int, typer.Option(min=1, help="Questions, drawn with the seed.")] = 300,
    open_sample: Annotated[
        int | None, typer.Option(min=1, help="Questions of the open task; default: as sample.")
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, help="Passages retrieved in the open task.")] = 10,
    seed: Annotated[int, typer.Option(help="Of the sample.")] = 0,
    output: Annotated[Path | None, typer.Option(help="JSON file for the figures.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Picture of the figures.")] = None,
) -> None:
    """
    One line a setting: F1 beside the teacher's, gold and open; bytes a token, all counted; milliseconds a question.
    """
    for path in (output, plot):
        check_output(path, data)
    if unknown := set(dtype or ()) - DTYPES:
        msg = f"dtype is {', '.join(sorted(unknown))}; expected one of {', '.join(sorted(DTYPES))}"
        raise ValueError(msg)
    if INT8 in (dtype or ()) and torch.accelerator.is_available():
        msg = f"dtype {INT8} computes on a CPU, but readers use the {torch.accelerator.current_accelerator()} here"
        raise ValueError(msg)
    source, taught = model_source(model), model_source(teacher)
    config = config_of(source)
    if not isinstance(config, BTRConfig) or not config.k or not config.bits:
        kind = "reads jointly, or has no bits" if isinstance(config, BTRConfig) else f"is of type {config.model_type}"
        msg = f"{model} {kind}; expected a BTR model, whose passages can be kept"
        raise ModelError(msg)
    prunes = config.k < config.encoder.num_hidden_layers - 1
    refuse_unreadable(bits or [], kept_share or [], config.bits, prunes=prunes)
    asked_for = {
        "bits": bits, "coded_share": coded_share, "kept_share": kept_share, "second_read": second_read, "dtype": dtype,
    }  # fmt: skip
    own = Setting(config.kept_bits, config.coded_share, config.kept_share)
    every = settings_of(own, asked_for, every=config.bits, pareto=pareto)
    every = [one for one in every if prunes or one.kept_share == 1]
    if keeps(taught) and any(one.second_read for one in every):
        msg = f"{teacher} is a split reader and cannot read documents again; expected an ordinary one as --teacher"
        raise ModelError(msg)
    if plot:
        pyplot()
    ordinary = ordinary_reader(source)
    paragraphs = read_squad(data)
    asked = drawn(paragraphs, sample, seed)
    if not asked:
        msg = f"{data} holds no question with an answer"
        raise DataError(msg)
    documents = corpus(paragraphs)
    searched = drawn(paragraphs, open_sample or sample, seed)
    tasks: dict[str, Task] = {"gold": gold(asked), "open": retrieved(searched, documents, top_k)}
    base = {name: score(BTRReader(taught, **ANSWERS), task, f"teacher, {name}") for name, task in tasks.items()}
    ordinary_ms = milliseconds(ordinary, tasks["open"][:TIMED])
    rows: list[dict[str, Any]] = []
    counts = {name: len(task) for name, task in tasks.items()}
    results = {"data": readable(data.name), "questions": counts, "seed": seed, "top_k": top_k}
    results |= {"model": Path(source).name, "machine": machine(), "teacher": base}
    results |= {"ordinary_ms": ordinary_ms, "rows": rows}
    with tempfile.TemporaryDirectory() as folder:
        for one in every:
            coded = one.coded_share
            url, bar = f"sqlite:///{folder}/{coded}.db", shows_progress()
            with BinaryTokenStore(source, url, bits=config.bits, coded_share=coded, progress_bar=bar) as whole:
                if whole.count_documents() < len(documents):
                    whole.write_documents(documents)
            url = f"sqlite:///{folder}/{one.bits}-{coded}.db"
            with BinaryTokenStore(source, url, bits=one.bits, coded_share=coded, progress_bar=False) as store, whole:
                store.copy_from(whole)
                reader = BTRReader(
                    source, token_store=store, kept_share=one.kept_share, second_read=one.second_read,
                    second_model=taught if one.second_read else None,
                    model_kwargs=None if one.dtype in (FLOAT, INT8) else {"dtype": one.dtype},
                    int8=one.dtype == INT8, **ANSWERS,
                )  # fmt: skip
                figures = {name: score(reader, task, f"{one}, {name}") for name, task in tasks.items()}
                ours_ms = milliseconds(reader, tasks["open"][:TIMED])
                rows.append(
                    asdict(one)
                    | {"bytes_a_token": store.report().bytes_per_token}
                    | {f"{name}_{figure}": value for name, found in figures.items() for figure, value in found.items()}
                    | {f"{name}_of_teacher": figures[name]["f1"] / max(base[name]["f1"], 1e-9) for name in tasks}
                    | {"ms": ours_ms, "times_faster": ordinary_ms / ours_ms}
                )
                if output:  # each setting is kept as soon as it is measured
                    output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    try:
        if plot:
            draw(rows, counts, plot)
    finally:
        result_console().print(as_table(rows, base))


def refuse_unreadable(bits: list[int], kept_share: list[float], every: int, *, prunes: bool) -> None:
    """
    Refuse, before any work, what a store or a reader would.

    :param bits: asked for.
    :param kept_share: asked for.
    :param every: bits of a whole code.
    :param prunes: whether there is an upper layer after which windows can be dropped.
    """
    if wrong := [count for count in bits if count > every]:
        msg = f"bits is {wrong[0]}; expected 0 to {every}, the bits of a code of this model"
        raise ValueError(msg)
    for share in kept_share:
        check_kept_share(share)
    if not prunes and (pruned := [share for share in kept_share if share < 1]):
        msg = f"kept_share is {pruned[0]}, but this model has one upper layer, after which nothing is left; expected 1"
        raise ValueError(msg)


def pyplot() -> Any:
    """
    Matplotlib's, drawing to files.

    :raises ImportError: without matplotlib.
    """
    try:
        import matplotlib as mpl
    except ImportError as error:
        msg = "the picture needs matplotlib: pip install 'btr-haystack[plot]'"
        raise ImportError(msg) from error
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    return plt


@dataclass(frozen=True)
class Setting:
    """
    What is measured.

    :param bits: kept a token.
    :param coded_share: share of the tokens that keep them.
    :param kept_share: share of the windows that are read to the end.
    :param second_read: documents that the teacher reads again.
    :param dtype: in which the reader computes; the ordinary one computes in float32.
    """

    bits: int
    coded_share: float
    kept_share: float = 1.0
    second_read: int = 0
    dtype: str = FLOAT

    def __str__(self) -> str:
        """Say it in few words."""
        return (
            f"{self.bits} bits for {self.coded_share:.0%}, {self.kept_share:.0%} of the windows, "
            f"{self.second_read} documents again, {self.dtype}"
        )


def settings_of(own: Setting, asked_for: dict[str, list[Any] | None], *, every: int, pareto: bool) -> list[Setting]:
    """
    Settings to be measured.

    :param own: the model's own.
    :param asked_for: values by the names of `Setting`; None where none are.
    :param every: bits of a whole code.
    :param pareto: bits and shares of coded tokens each with each, then the other knobs one after another; what is not
        asked for takes several values. Otherwise each with each, and what is not asked for is as it is by default.
    """
    given = {name: values for name, values in asked_for.items() if values}
    if not pareto:
        each = {name: [value] for name, value in asdict(own).items()} | given
        return [Setting(*one) for one in itertools.product(*each.values())]
    usual: dict[str, list[Any]] = {"bits": sorted({every, own.bits, every // 2}, reverse=True), **PARETO}
    usual["dtype"] = ["bfloat16"] * fast_bf16() + [INT8] * (not torch.accelerator.is_available())
    values = usual | given
    base = replace(
        own, bits=max(given.get("bits", [own.bits])), coded_share=given.get("coded_share", [own.coded_share])[0]
    )
    stored = [replace(own, bits=bits, coded_share=share) for bits in values["bits"] for share in values["coded_share"]]
    others = [
        replace(base, **{name: one}) for name in values if name not in ("bits", "coded_share") for one in values[name]
    ]
    return list(dict.fromkeys([base, *stored, *others]))


def gold(asked: list[Asked]) -> Task:
    """Each question with its own paragraph alone."""
    return [(one, [Document(content=one[0].text)]) for one in asked]


def retrieved(asked: list[Asked], documents: list[Document], top_k: int) -> Task:
    """Each question with the documents that BM25 finds for it."""
    retriever = InMemoryBM25Retriever(filled(documents), top_k=top_k)
    return [(one, retriever.run(query=one[1].text)["documents"]) for one in asked]


def score(reader: Reader, task: Task, label: str) -> dict[str, float]:
    """Mean exact match and F1 in percent."""
    reader.warm_up()
    given = {id(one): documents for one, documents in task}
    asked = [one for one, _ in task]
    answers = answered(asked, lambda one: reader.run(query=one[1].text, documents=given[id(one)]), (label, False, ""))
    figures = scored(asked, answers)
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
    table = empty_table(
        "bits",
        "coded",
        "windows",
        "again",
        "computes in",
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
            row["dtype"],
            f"{row['bytes_a_token']:.1f}", f"{row['gold_f1']:.1f}",
            f"{row['gold_of_teacher']:.1%}", f"{row['open_f1']:.1f}", f"{row['open_of_teacher']:.1%}",
            f"{row['ms']:.0f}", f"{row['times_faster']:.1f}x",
        )  # fmt: skip
    return table


def draw(rows: list[dict[str, Any]], questions: dict[str, int], path: Path) -> None:
    """
    Accuracy kept against bytes a token, of the settings of the store, and against speed, of those of the reader.

    The title tells how far chance may move the shares: the F1 of one question differs by about 0.4 between readers.
    `questions` counts those of each task.

    A setting stands in it that differs from the first one in what is stored, or in one thing of the reader's.
    """
    plt = pyplot()
    figure, (storage, speed) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained", sharey=True)
    base = rows[0]
    stored = [row for row in rows if all(row[knob] == base[knob] for knob in KNOBS[2:])]
    for count, marker in zip(
        sorted({row["bits"] for row in stored}, reverse=True), itertools.cycle("osD^v"), strict=False
    ):
        ours = sorted((row for row in stored if row["bits"] == count), key=lambda row: row["bytes_a_token"])
        for task, style in (("gold", "-"), ("open", "--")):
            kept = [100 * row[f"{task}_of_teacher"] for row in ours]
            storage.plot([row["bytes_a_token"] for row in ours], kept, style + marker, label=f"{count} bits, {task}")
        for row in ours:
            place = (row["bytes_a_token"], 100 * row["gold_of_teacher"])
            storage.annotate(f"{row['coded_share']:.0%}", place, (5, 4), textcoords="offset points")
    storage.set(xlabel="bytes a token, everything counted", ylabel="F1 kept (%)")
    for name, label in (("kept_share", "windows pruned"), ("second_read", "read again"), ("dtype", "computes in")):
        ours = [row for row in rows if all(row[knob] == base[knob] for knob in KNOBS if knob != name)]
        ours.sort(key=lambda row: float(row["times_faster"]))
        if len(ours) < 2 and name != "kept_share":
            continue
        faster = [row["times_faster"] for row in ours]
        for task, style in (("gold", "-"), ("open", "--")):
            kept = [100 * row[f"{task}_of_teacher"] for row in ours]
            speed.plot(faster, kept, style + "o", label=f"{label}, {task}")
        for row in ours:
            if row is base and name != "kept_share":  # its place is labelled already
                continue
            note = f"{row[name]:.0%}" if name == "kept_share" else str(row[name])
            place = (row["times_faster"], 100 * row["open_of_teacher"])
            speed.annotate(note, place, (5, 4), textcoords="offset points")
    speed.set(xlabel="times faster than the ordinary reader")
    chance = [f"{count} questions {task}: ± {40 / count**0.5:.0f} %" for task, count in questions.items()]
    figure.suptitle(f"uncertainty of the shares, {', '.join(chance)}", fontsize=9)
    for axes in (storage, speed):
        axes.axhline(100, color="grey", linewidth=0.8)
        axes.legend(frameon=False, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=160)
    plt.close(figure)


def machine() -> str:
    """What the figures were measured on."""
    model = platform.processor() or platform.machine()
    if (described := Path("/proc/cpuinfo")).exists():
        lines = described.read_text(encoding="utf-8", errors="replace").splitlines()
        names = [line for line in lines if line.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    return f"{model}, {os.cpu_count()} cores, torch {torch.__version__}"
