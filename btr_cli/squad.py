# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""`btr evaluate` on SQuAD: exact match and F1 of readers beside their teacher, on the same questions."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from haystack import Document

from btr_cli.answers import Answer, Journal, Key, best, bytes_a_token, journal_beside, means
from btr_cli.figures import tell
from btr_cli.pipelines import ANSWERS, Reader, keeps, put_question, question_pipeline, sampled, try_out
from btr_cli.terminal import quiet, readable, shows_progress
from btr_haystack.errors import DataError
from btr_haystack.metrics import best_threshold, exact_match, f1
from btr_haystack.squad import Paragraph, Question, read_squad
from btr_haystack.stores import MEMORY
from haystack_integrations.components.readers.btr import BinaryTokenStore, BTRGenerativeReader, BTRReader

Asked = tuple[Paragraph, Question]
Ask = Callable[[Asked], dict[str, Any]]  # gives a reader's outputs

COLUMNS = (
    "task",
    "model",
    "questions",
    "EM",
    "F1",
    "of teacher's F1",
    "passages",
    "ms, encoding included",
    "hits",
    "bytes a token",
)


@dataclass(frozen=True, slots=True)
class SquadSettings:
    """
    What is measured.

    :param data: file in the SQuAD format.
    :param parts: of "gold", "open" and "no-answer".
    :param models: folders or hub ids.
    :param teacher: folder or hub id of the model that they are compared with, which has none of the knobs.
    :param sample: number of questions, drawn with the seed; None for all.
    :param open_sample: number of questions of the open task; None for as many.
    :param seed: of the samples.
    :param top_k: passages a question in the open task.
    :param bits: kept a token; None for the model's own.
    :param coded_share: share of the tokens that keep bits; None for the model's own.
    :param kept_share: share of the windows that are read to the end; None for the model's own.
    :param prompt: what a model that writes is asked, around "{query}"; None where answers are found.
    :param merging: `merged_share`, `merged_inside` and `merged_across`, where answers are written.
    :param max_answer_length: most tokens of an answer that is found; 0 for no limit.
    :param retrieval_weight: how much BM25's scores count.
    :param second_read: documents that the teacher reads again.
    :param language: in which answers are compared; None for SQuAD's own script.
    """

    data: Path
    parts: tuple[str, ...]
    models: tuple[str, ...]
    teacher: str | None
    sample: int | None
    open_sample: int | None
    seed: int
    top_k: int
    bits: int | None
    coded_share: float | None
    kept_share: float | None
    prompt: str | None
    merging: dict[str, float]
    max_answer_length: int
    retrieval_weight: float
    second_read: int
    language: str | None = None

    @property
    def told(self) -> dict[str, Any]:
        """What is said of a run beside its figures, and what its answers depend on."""
        own = ("seed", "top_k", "bits", "coded_share", "kept_share", "retrieval_weight", "second_read", "prompt")
        told = {"data": readable(self.data.name)} | {name: getattr(self, name) for name in own}
        told |= {"language": self.language} if self.language else {}
        writing = {"writes": True, **self.merging}
        return told | (
            {"writes": False, "max_answer_length": self.max_answer_length} if self.prompt is None else writing
        )


@quiet(BTRGenerativeReader.__module__)  # it tells of each answer that stands nowhere
def evaluate_squad(settings: SquadSettings, output: Path | None) -> list[dict[str, Any]]:
    """
    Ask each model each question.

    :param settings: what is measured.
    :param output: JSON file for the figures; beside it a Markdown table, and the answers, from which a run that was
        broken off goes on.
    :returns: a row of figures for each task and model.
    :raises DataError: where a file cannot be read, or has no such questions, or the answers beside `output` are those
        of other settings.
    """
    paragraphs = read_squad(settings.data)
    if not drawn(paragraphs, None, settings.seed):
        msg = f"{settings.data} holds no question with an answer"
        raise DataError(msg)
    unanswerable = any(not question.answers for paragraph in paragraphs for question in paragraph.questions)
    if "no-answer" in settings.parts and not unanswerable:
        msg = f"{settings.data} holds no question without an answer; mode no-answer needs a file like those of SQuAD 2"
        raise DataError(msg)
    questions = {
        part: drawn(
            paragraphs, settings.open_sample if part == "open" and settings.open_sample else settings.sample,
            settings.seed, unanswerable=part == "no-answer",
        )
        for part in settings.parts
    }  # fmt: skip
    everyone = [(settings.teacher, True)] if settings.teacher else []
    everyone += [(name, False) for name in settings.models]
    searched = corpus(paragraphs)
    told = settings.told
    for name, teacher in everyone:
        try_out(reader_of(name, settings, teacher=teacher))
    journal = journal_beside(output, told, [*questions.values()], [name for name, _ in everyone], searched)
    rows: list[dict[str, Any]] = []
    for part, asked in questions.items():
        for name, teacher in everyone:
            reader = reader_of(name, settings, teacher=teacher)
            reader.warm_up()
            ask = on_retrieved(reader, searched, settings.top_k) if part == "open" else on_gold(reader)
            answers = answered(asked, ask, (name, teacher, part), journal)
            judge = score_with_threshold if part == "no-answer" else score
            figures = judge(asked, answers, settings.language)
            row = {"task": part, "model": Path(name).name, "teacher": teacher, **figures}
            rows.append(row | {"bytes_a_token": bytes_a_token(reader, row, told, output)})
            reader.close()
    base = {row["task"]: row["f1"] for row in rows if row["teacher"]}
    for row in rows:
        if base.get(row["task"]):
            row["share_of_teacher_f1"] = row["f1"] / base[row["task"]]
    title = f"{told['data']}, seed {settings.seed}" + (f", language {settings.language}" if settings.language else "")
    tell(COLUMNS, [cells(row) for row in rows], title, {**told, "rows": rows}, output)
    return rows


def reader_of(model: str, settings: SquadSettings, *, teacher: bool = False) -> Reader:
    """The component that answers: the teacher as it is, another with the knobs."""
    knobs: dict[str, Any] = {} if teacher else {"kept_share": settings.kept_share}
    store = None
    merged = settings.merging.get("merged_share", 0.0)
    cut = settings.bits is not None or settings.coded_share is not None or merged  # which a joint reader refuses
    if not teacher and (keeps(model) or cut):
        store = BinaryTokenStore(
            model, MEMORY, bits=settings.bits, coded_share=settings.coded_share, merged_share=merged,
            progress_bar=shows_progress(),
        )  # fmt: skip
    if settings.prompt is not None:
        if not teacher:
            knobs |= {name: value for name, value in settings.merging.items() if name != "merged_share"}
        return BTRGenerativeReader(model, token_store=store, prompt=settings.prompt, **knobs)
    if not teacher and settings.second_read:
        knobs |= {"second_model": settings.teacher, "second_read": settings.second_read}
    return BTRReader(
        model, token_store=store, retrieval_weight=settings.retrieval_weight, **knobs,
        **ANSWERS | {"max_answer_length": settings.max_answer_length or None},
    )  # fmt: skip


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


def on_gold(reader: Reader) -> Ask:
    """Answers from the question's own paragraph."""

    def ask(asked: Asked) -> dict[str, Any]:
        return reader.run(query=asked[1].text, documents=[Document(content=asked[0].text)])

    return ask


def corpus(paragraphs: list[Paragraph]) -> list[Document]:
    """What is searched: all paragraphs of the file, each once."""
    return [Document(content=text) for text in dict.fromkeys(paragraph.text for paragraph in paragraphs)]


def on_retrieved(reader: Reader, documents: list[Document], top_k: int) -> Ask:
    """Answers from the documents that BM25 finds, in a Haystack pipeline."""
    pipeline = question_pipeline(documents, reader, top_k)

    def ask(asked: Asked) -> dict[str, Any]:
        return put_question(pipeline, asked[1].text)

    return ask


def answered(
    asked: list[Asked], ask: Ask, reader: tuple[str, bool, str], journal: Journal | None = None
) -> list[Answer]:
    """
    An answer to each question.

    :param asked: the questions.
    :param ask: gives the outputs of a reader.
    :param reader: model, whether it stands in as the teacher, and what it is asked for.
    :param journal: has the answers that were given already, and gets the others.
    """

    def answer(key: Key, one: Asked) -> Answer:
        start = time.perf_counter()
        outputs = ask(one)
        ms = 1e3 * (time.perf_counter() - start)
        text, certainty = best(outputs)
        cache = outputs["cache"]
        return Answer(*key, one[1].id, text, certainty, ms, hits=cache["hits"], passages=sum(cache.values()))

    return (journal or Journal(None, {})).answers(reader, asked, answer)


def score(asked: list[Asked], answers: list[Answer], language: str | None = None) -> dict[str, Any]:
    """Mean exact match and F1 in percent, of a language or as SQuAD's script has them, and what `means` gives."""
    count = max(len(asked), 1)
    golds = [[text for text, _ in question.answers] for _, question in asked]
    matches = sum(exact_match(answer.text, gold, language) for answer, gold in zip(answers, golds, strict=True))
    overlaps = sum(f1(answer.text, gold, language) for answer, gold in zip(answers, golds, strict=True))
    return {"em": 100 * matches / count, "f1": 100 * overlaps / count, **means(answers)}


def score_with_threshold(asked: list[Asked], answers: list[Answer], language: str | None = None) -> dict[str, Any]:
    """Best exact match and F1 in percent where answers below one threshold count as none given (SQuAD 2.0)."""
    golds = [[text for text, _ in question.answers] for _, question in asked]
    answerable = [bool(one) for one in golds]
    scores = [answer.score for answer in answers]
    figures: dict[str, Any] = {"unanswerable": answerable.count(False)}
    for name, metric in (("em", exact_match), ("f1", f1)):
        values = [metric(answer.text, one, language) for answer, one in zip(answers, golds, strict=True)]
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
