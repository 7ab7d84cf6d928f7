# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""`btr evaluate --task`: the paper's five tasks; Haystack components retrieve and read; resumed when run again."""

import logging
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

from haystack import Document
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever
from torch import Tensor

from btr_cli.answers import Answer, Key, best, bytes_a_token, journal_beside, means
from btr_cli.figures import tell
from btr_cli.pipelines import ANSWERS, Reader, filled, keeps, sampled, try_out
from btr_cli.terminal import quiet, readable
from btr_haystack.errors import DataError
from btr_haystack.model_files import tokenizer_of
from btr_haystack.stores import MEMORY
from btr_haystack.tasks import TASKS, Item, open_exact_match, question_of, read_passages
from haystack_integrations.components.readers.btr import BinaryTokenStore, BTRGenerativeReader, BTRReader

logger = logging.getLogger(__name__)

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


@dataclass(frozen=True, slots=True)
class TaskSettings:
    """
    What is measured.

    :param task: one of `TASKS`.
    :param data: file of questions.
    :param passages: file of passages; None for those that come with the questions.
    :param models: folders or hub ids.
    :param teacher: folder or hub id of the model that they are compared with.
    :param writes: answers are written by the decoder, not found in a passage.
    :param sample: number of questions, drawn with the seed; None for all.
    :param seed: of the sample.
    :param top_k: passages a question.
    :param prompt: what a model that writes is asked, around "{query}".
    :param store: url of the store for passages; in memory where there is none.
    :param knobs: `kept_share` (None for the model's own), and where answers are written `merged_share` (of the store),
        `merged_inside` and `merged_across`; the teacher has none.
    :param language: in which answers are compared; None for English, as the tasks' scripts do.
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
    store: str = MEMORY
    knobs: dict[str, float | None] = field(default_factory=dict)
    language: str | None = None

    @property
    def judged(self) -> dict[str, Any]:
        """How answers are compared, where that is said."""
        return {"language": self.language} if self.language else {}


@quiet(BTRGenerativeReader.__module__)  # it tells of each answer that stands nowhere
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
    if settings.language and task.metric is not open_exact_match:
        msg = f"--language has no meaning for task {settings.task}, whose answers are not compared as texts"
        raise ValueError(msg)
    every = task.read(Path(settings.data))
    if settings.passages is not None and any(item.retrieved for item in every):
        logger.warning("%s comes with passages, which are not read: --passages is given", settings.data)
        every = [replace(item, passages=(), titles=(), retrieved=False) if item.retrieved else item for item in every]
    items = sampled(every, settings.sample, settings.seed)
    ready = all(item.retrieved for item in every)
    documents = [] if ready else list(corpus(every, settings.passages))
    if not documents and not ready:
        msg = f"{settings.data} comes without passages: give a file of them with --passages"
        raise DataError(msg)
    check_stores(settings)
    asked_of = [(settings.teacher, True)] if settings.teacher else []
    asked_of += [(model, False) for model in settings.models]
    for model, teacher in asked_of:
        try_out(reader_of(model, settings, teacher=teacher))
    retriever = InMemoryBM25Retriever(filled(documents), top_k=settings.top_k) if documents else None
    head = {"task": settings.task, "writes": settings.writes, "top_k": settings.top_k, "prompt": settings.prompt}
    head |= told_knobs(settings) | {"words": task.words if settings.writes else ()}
    head |= settings.judged | {"passages": Path(settings.passages).name if settings.passages else None}
    journal = journal_beside(output, head, items, [model for model, _ in asked_of], documents)
    name = readable(Path(settings.data).name)
    told: dict[str, Any] = {"data": name, "seed": settings.seed, "top_k": settings.top_k}
    told |= {"writes": settings.writes, "prompt": settings.prompt, **settings.knobs}
    told |= settings.judged
    metric = partial(open_exact_match, language=settings.language) if settings.language else task.metric
    rows: list[dict[str, Any]] = []
    for model, teacher in asked_of:
        tokenizer = tokenizer_of(model) if task.words else None
        reader = reader_of(model, settings, teacher=teacher)
        reader.warm_up()
        ask = partial(answered, reader, retriever, settings, tokenizer)
        answers = journal.answers((model, teacher, settings.task), items, ask)
        value = sum(metric(answer.text, item) for answer, item in zip(answers, items, strict=True))
        row = means(answers) | {"value": 100 * value / max(len(items), 1), "metric": task.metric_name}
        row |= {"task": settings.task, "model": Path(model).name, "teacher": teacher}
        rows.append(row | {"bytes_a_token": bytes_a_token(reader, row, told, output)})
        reader.close()
    base = next((row["value"] for row in rows if row["teacher"]), None)
    for row in rows:
        row["share_of_teacher"] = row["value"] / base if base else None
    title = f"{settings.task}, {len(items)} of {name}, top {settings.top_k}, seed {settings.seed}"
    title += "".join(f", {knob} {value}" for knob, value in (told_knobs(settings) | settings.judged).items())
    lines = [cells(row) for row in rows]
    tell(COLUMNS, lines, title, {**told, "rows": rows}, output)
    return rows


def check_stores(settings: TaskSettings) -> None:
    """
    Refuse a store for models that keep nothing, and one for two models.

    :raises ValueError: at either.
    """
    asked_for = {"--store": settings.store != MEMORY, "--merged-share": settings.knobs.get("merged_share")}
    options = " and ".join(option for option, given in asked_for.items() if given)
    keeping = [model for model in settings.models if keeps(model)]
    if options and (joint := set(settings.models) - set(keeping)):
        msg = f"{', '.join(joint)} reads question and passage jointly and keeps nothing: leave out {options}"
        raise ValueError(msg)
    if settings.store != MEMORY and len(keeping) > 1:
        msg = f"--store is {settings.store}, but a store belongs to one model, not to {', '.join(keeping)}: give one"
        raise ValueError(msg)


def told_knobs(settings: TaskSettings) -> dict[str, float | None]:
    """The knobs that change something."""
    return {name: value for name, value in settings.knobs.items() if value}


def corpus(items: list[Item], passages: str | None) -> Iterator[Document]:
    """What is searched: the passages of the file and those that come with the questions."""
    yield from {document.content: document for item in items for document in own_passages(item)}.values()
    if passages is not None:
        for one in read_passages(passages):
            yield Document(content=one.text, meta={"title": one.title})


def own_passages(item: Item) -> list[Document]:
    """The passages that come with a question, with their titles where the file has them."""
    titled = zip_longest(item.passages, item.titles, fillvalue="")
    return [Document(content=text, meta={"title": title} if title else {}) for text, title in titled]


def reader_of(model: str, settings: TaskSettings, *, teacher: bool = False) -> Reader:
    """The component that answers; where a task has only so many answers, it writes no other."""
    store = None
    knobs: dict[str, Any] = {}
    if not teacher:
        knobs = {name: value for name, value in settings.knobs.items() if name != "merged_share"}
    if not teacher and keeps(model):
        merged = settings.knobs.get("merged_share") or 0.0
        store = BinaryTokenStore(model, settings.store, progress_bar=False, merged_share=merged)
    if settings.writes:
        words = TASKS[settings.task].words
        only = {"prefix_allowed_tokens_fn": one_of(words, tokenizer_of(model))} if words else None
        return BTRGenerativeReader(model, token_store=store, prompt=settings.prompt, generation_kwargs=only, **knobs)
    kept = knobs.get("kept_share")
    return BTRReader(model, token_store=store, kept_share=kept, **ANSWERS)


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


def fitting(item: Item, prompt: str, room: int, tokenizer: Any) -> str:
    """
    What is asked, without the first words of a question that is too long: its choices stand behind it.

    :param item: a question with choices.
    :param prompt: around "{query}".
    :param room: most tokens of it all, as the reader cuts it.
    :param tokenizer: the model's.
    """
    words = item.question.split()

    def asked(dropped: int) -> str:
        return question_of(replace(item, question=" ".join(words[dropped:]))) if dropped else question_of(item)

    def fits(dropped: int) -> bool:
        return len(tokenizer(prompt.replace("{query}", asked(dropped)), verbose=False)["input_ids"]) <= room

    return asked(bisect_left(range(len(words)), True, key=fits))


def answered(
    reader: Reader,
    retriever: InMemoryBM25Retriever | None,
    settings: TaskSettings,
    tokenizer: Any,
    key: Key,
    item: Item,
) -> Answer:
    """
    One question: what BM25 finds, `top_k` in all; its own passages stand in for the last where BM25 missed them.

    Where a retriever has found its own passages already, the first `top_k` of them are read and no others.
    Reading alone is timed: a store is given the passages before, as an indexing pipeline does.
    """
    query = question_of(item)
    if item.choices:
        query = fitting(item, settings.prompt, reader.max_seq_length // 2, tokenizer)
    documents = own_passages(item)
    if retriever is not None and not item.retrieved:
        found = retriever.run(query=item.question)["documents"]
        own = [document for document in documents if document.content not in {one.content for one in found}]
        documents = [*found[: max(0, settings.top_k - len(own))], *own]
    documents = documents[: settings.top_k]
    store = reader.token_store
    hits = len(documents) - store.write_documents(documents) if store is not None else 0
    start = time.perf_counter()
    out = reader.run(query=query, documents=documents)
    ms = 1e3 * (time.perf_counter() - start)
    text, score = best(out)
    return Answer(*key, id=item.id, text=text, score=score, ms=ms, hits=hits, passages=len(documents))


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """A row's figures as text, in the order of `COLUMNS`."""
    share = "" if row["share_of_teacher"] is None else f"{row['share_of_teacher']:.1%}"
    size = "" if row["bytes_a_token"] is None else f"{row['bytes_a_token']:.1f}"
    return (
        row["model"], row["metric"], f"{row['value']:.1f}", share, str(row["questions"]), f"{row['passages']:.1f}",
        f"{row['ms']:.0f}", f"{row['hits']:.0%}", size,
    )  # fmt: skip
