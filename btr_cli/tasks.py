# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""`btr evaluate --task`: the paper's five tasks; Haystack components retrieve and read; resumed when run again."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from haystack import Document
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table
from torch import Tensor
from transformers import AutoTokenizer

from btr_cli.pipelines import filled, sampled
from btr_haystack.errors import DataError
from btr_haystack.tasks import TASKS, Item, question_of, read_passages
from haystack_integrations.components.readers.btr import BinaryTokenStore, BTRGenerativeReader, BTRReader

MUST_WRITE = ("fever", "mmlu")  # their answers stand in no passage
COLUMNS = (
    "model",
    "metric",
    "value",
    "of the teacher's",
    "questions",
    "passages",
    "ms a question",
    "hits",
    "bytes a token",
)
Reader = BTRReader | BTRGenerativeReader


@dataclass(frozen=True, slots=True)
class TaskSettings:
    """
    What is measured.

    :param task: one of `TASKS`.
    :param data: file of questions.
    :param passages: file of passages; None for those that come with the questions.
    :param models: folders or hub ids, the teacher first where there is one.
    :param teacher: which of the models the others are compared with.
    :param writes: answers are written by the decoder, not found in a passage.
    :param sample: number of questions, drawn with the seed; None for all.
    :param seed: of the sample.
    :param top_k: passages a question.
    :param prompt: what a model that writes is asked, around "{query}".
    :param store: url of the store for passages; in memory where there is none.
    :param knobs: `kept_share` (None for the model's own), and where answers are written `merged_share` (of the store),
        `merged_inside` and `merged_across`, of all models but the teacher.
    """

    task: str
    data: str
    passages: str | None
    models: tuple[str, ...]
    teacher: str | None
    writes: bool
    sample: int | None
    seed: int
    top_k: int
    prompt: str
    store: str = "memory://"
    knobs: dict[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """One question answered: what was said, whether that is right, how long it took, what the store had."""

    model: str
    id: str
    text: str
    value: float
    ms: float
    hits: int
    passages: int


def evaluate_task(settings: TaskSettings, output: Path | None) -> list[dict[str, Any]]:
    """
    Ask each model each question.

    :param settings: what is measured.
    :param output: JSON file for the figures; beside it a Markdown table, and the answers, from which a run that was
        broken off goes on.
    :returns: a row of figures for each model.
    :raises DataError: where a file cannot be read, or the answers beside `output` are those of other settings.
    :raises ValueError: for a task that must be written, where answers are found.
    """
    task = TASKS[settings.task]
    if settings.task in MUST_WRITE and not settings.writes:
        msg = f"the answers of {settings.task} stand in no passage: give --writes, and a model with a decoder"
        raise ValueError(msg)
    every = task.read(Path(settings.data))
    items = sampled(every, settings.sample, settings.seed)
    documents = list(corpus(every, settings.passages))
    if not documents:
        msg = f"{settings.data} comes without passages: give a file of them with --passages"
        raise DataError(msg)
    retriever = InMemoryBM25Retriever(filled(documents), top_k=settings.top_k)
    journal = Journal(output.with_suffix(".answers.jsonl") if output else None, settings, items)
    rows: list[dict[str, Any]] = []
    for model in settings.models:
        reader = reader_of(model, settings)
        reader.warm_up()
        for item in track(items, description=f"{settings.task} {Path(model).name}"):
            if (model, item.id) not in journal.done:
                journal.add(answered(reader, retriever, item, settings.top_k, model, task.metric))
        answers = [journal.done[model, item.id] for item in items]
        row = figures(answers) | {"task": settings.task, "model": Path(model).name, "metric": task.metric_name}
        row["bytes_a_token"] = bytes_a_token(reader)
        rows.append(row | {"teacher": model == settings.teacher})
        reader.close()
    base = next((row["value"] for row in rows if row["teacher"]), None)
    for row in rows:
        row["share_of_teacher"] = row["value"] / base if base else None
    title = f"{settings.task}, {len(items)} of {Path(settings.data).name}, top {settings.top_k}, seed {settings.seed}"
    title += "".join(f", {name} {value}" for name, value in told_knobs(settings).items())
    Console().print(as_table(rows, title))
    if output:
        found: dict[str, Any] = {"data": Path(settings.data).name, "seed": settings.seed, "top_k": settings.top_k}
        found |= {"writes": settings.writes, "prompt": settings.prompt, **settings.knobs, "rows": rows}
        output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        output.with_suffix(".md").write_text(as_markdown(rows, title), encoding="utf-8")
    return rows


def told_knobs(settings: TaskSettings) -> dict[str, float | None]:
    """The knobs that change something."""
    return {name: value for name, value in settings.knobs.items() if value}


def corpus(items: list[Item], passages: str | None) -> Iterator[Document]:
    """What is searched: the passages of the file and those that come with the questions."""
    for text in dict.fromkeys(text for item in items for text in item.passages):
        yield Document(content=text)
    if passages is not None:
        for one in read_passages(passages):
            yield Document(content=one.text, meta={"title": one.title})


def reader_of(model: str, settings: TaskSettings) -> Reader:
    """The component that answers."""
    store = None
    knobs: dict[str, Any] = {}
    if model != settings.teacher:
        knobs = {name: value for name, value in settings.knobs.items() if name != "merged_share"}
        merged = settings.knobs.get("merged_share") or 0.0
        store = BinaryTokenStore(model, settings.store, progress_bar=False, merged_share=merged)
    if settings.writes:
        words = TASKS[settings.task].words
        only = {"prefix_allowed_tokens_fn": one_of(words, AutoTokenizer.from_pretrained(model))} if words else None
        return BTRGenerativeReader(model, token_store=store, prompt=settings.prompt, generation_kwargs=only, **knobs)
    kept = knobs.get("kept_share")
    return BTRReader(model, token_store=store, top_k=1, no_answer=False, max_answer_length=30, kept_share=kept)


def one_of(words: Sequence[str], tokenizer: Any) -> Callable[[int, Tensor], list[int]]:
    """
    For transformers' `generate`: what may follow, so that nothing but one of these words is written.

    :param words: the answers that there are.
    :param tokenizer: the model's; it closes a text.
    :returns: for `prefix_allowed_tokens_fn`; behind a word only padding is left.
    """
    every = [tokenizer(word)["input_ids"] for word in words]

    def allowed(_row: int, written: Tensor) -> list[int]:
        begun = written.tolist()[1:]  # the first is the token that decoding starts from
        following = {ids[len(begun)] for ids in every if ids[: len(begun)] == begun and len(ids) > len(begun)}
        return sorted(following) or [tokenizer.pad_token_id]

    return allowed


def answered(
    reader: Reader, retriever: InMemoryBM25Retriever, item: Item, top_k: int, model: str,
    metric: Callable[[str, Item], float],
) -> Answer:  # fmt: skip
    """
    One question: its own passages first, then what BM25 finds, `top_k` in all.

    Reading alone is timed: a store is given the passages before, as an indexing pipeline does.
    """
    query = question_of(item)
    own = [Document(content=text) for text in item.passages]
    found = retriever.run(query=item.question)["documents"]
    documents = [*own, *(one for one in found if one.content not in item.passages)][:top_k]
    store = reader.token_store
    hits = len(documents) - store.write_documents(documents) if store is not None else 0
    start = time.perf_counter()
    out = reader.run(query=query, documents=documents)
    ms = 1e3 * (time.perf_counter() - start)
    text = (out["answers"][0].data or "") if out["answers"] else ""
    return Answer(model, item.id, text, metric(text, item), ms, hits, len(documents))


class Journal:
    """
    Answers as they come, a line each, so that a run that was broken off goes on.

    :param path: the file; None keeps nothing.
    :param settings: of the run; the first line of the file tells them.
    :param items: the questions.
    :raises DataError: where the file has answers of other settings, or is damaged elsewhere than in its last line.
    """

    def __init__(self, path: Path | None, settings: TaskSettings, items: list[Item]) -> None:
        self.path = path
        self.done: dict[tuple[str, str], Answer] = {}
        asked = hashlib.blake2b("\n".join(map(repr, items)).encode("utf-8", "replace"), digest_size=8).hexdigest()
        head = {"task": settings.task, "writes": settings.writes, "top_k": settings.top_k, "prompt": settings.prompt}
        head |= {
            **told_knobs(settings),
            "words": TASKS[settings.task].words if settings.writes else (),
            "questions": asked,
            "passages": Path(settings.passages).name if settings.passages else None,
        }
        if path is None:
            return
        if not path.exists():
            path.write_text(json.dumps(head) + "\n", encoding="utf-8")
            return
        first, *lines = path.read_text(encoding="utf-8").splitlines() or [""]
        if first != json.dumps(head):
            msg = f"{path} holds answers of another run ({first:.120}); expected {json.dumps(head)}: move it away"
            raise DataError(msg)
        whole = [first]
        for number, line in enumerate(lines, 2):
            try:
                answer = Answer(**json.loads(line))
            except (ValueError, TypeError) as error:
                if number <= len(lines):
                    msg = f"{path}, line {number}: not an answer: {line:.80}"
                    raise DataError(msg) from error
                continue  # the run was broken off in the middle of it
            self.done[answer.model, answer.id] = answer
            whole.append(line)
        path.write_text("\n".join(whole) + "\n", encoding="utf-8")

    def add(self, answer: Answer) -> None:
        """Keep one answer."""
        self.done[answer.model, answer.id] = answer
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(answer)) + "\n")


def figures(answers: list[Answer]) -> dict[str, Any]:
    """Means over the questions."""
    count = max(len(answers), 1)
    passages = sum(answer.passages for answer in answers)
    return {
        "questions": len(answers),
        "value": 100 * sum(answer.value for answer in answers) / count,
        "ms": sum(answer.ms for answer in answers) / count,
        "passages": passages / count,
        "hits": sum(answer.hits for answer in answers) / max(passages, 1),
    }


def bytes_a_token(reader: Reader) -> float | None:
    """Everything counted; None for a reader that keeps nothing, or has not read anything in this run."""
    if reader.token_store is None or not reader.token_store.count_documents():
        return None
    return reader.token_store.report().bytes_per_token


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """A row's figures as text, in the order of `COLUMNS`."""
    share = "" if row["share_of_teacher"] is None else f"{row['share_of_teacher']:.1%}"
    size = "" if row["bytes_a_token"] is None else f"{row['bytes_a_token']:.1f}"
    return (
        row["model"], row["metric"], f"{row['value']:.1f}", share, str(row["questions"]), f"{row['passages']:.1f}",
        f"{row['ms']:.0f}", f"{row['hits']:.0%}", size,
    )  # fmt: skip


def as_table(rows: list[dict[str, Any]], title: str) -> Table:
    """The figures for people."""
    table = Table(*COLUMNS, title=escape(title))
    for row in rows:
        table.add_row(*map(escape, cells(row)))
    return table


def as_markdown(rows: list[dict[str, Any]], title: str) -> str:
    """The figures for a README."""
    lines = [COLUMNS, ("---",) * len(COLUMNS), *map(cells, rows)]
    return f"{title}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)
