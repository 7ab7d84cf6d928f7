# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""Answers as they come, kept so that an evaluation that was broken off goes on; and what they have in common."""

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from haystack import Document, ExtractedAnswer

from btr_cli.figures import JOURNAL
from btr_cli.jsonlines import JsonLines
from btr_cli.terminal import tracked
from btr_haystack.digest import digest_of_model
from btr_haystack.errors import DataError

Key = tuple[str, bool, str, int]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer:
    """
    One question answered.

    :param model: folder or hub id.
    :param teacher: whether the model stands in as the teacher, with none of the knobs.
    :param task: what it was asked for.
    :param number: of the question, from 0.
    :param id: of the question, in its file.
    :param text: what was said, empty for nothing.
    :param score: the reader's.
    :param ms: milliseconds that it took.
    :param hits: passages that came from the store.
    :param passages: that were read.
    """

    model: str
    teacher: bool
    task: str
    number: int
    id: str
    text: str
    score: float
    ms: float
    hits: int
    passages: int

    @property
    def key(self) -> Key:
        """Which question it answers, and by whom."""
        return self.model, self.teacher, self.task, self.number


class Journal:
    """
    Answers in a file, a line each.

    :param path: the file; None keeps them in memory.
    :param head: what the answers depend on; the first line of the file tells it.
    :raises DataError: where the file has answers of other settings, or is damaged elsewhere than in its last line.
    """

    def __init__(self, path: Path | None, head: dict[str, Any]) -> None:
        self.lines = JsonLines(path, head, "answer")
        self.done: dict[Key, Answer] = {}
        for number, line in enumerate(self.lines.values, 2):
            try:
                answer = Answer(**line)
            except TypeError as error:
                msg = f"{path}, line {number}: not an answer: {line!s:.80}"
                raise DataError(msg) from error
            self.done[answer.key] = answer

    def add(self, answer: Answer) -> None:
        """Keep one answer."""
        self.done[answer.key] = answer
        self.lines.add(asdict(answer))

    def answers(
        self, reader: tuple[str, bool, str], asked: Sequence[T], ask: Callable[[Key, T], Answer]
    ) -> list[Answer]:
        """
        The answers of a reader, those that are missing asked for.

        :param reader: model, whether it stands in as the teacher, and the task.
        :param asked: the questions.
        :param ask: answers a question, which has this key.
        :returns: an answer to each question, in order.
        """
        model, _, task = reader
        keys = [(*reader, number) for number in range(len(asked))]
        description = f"{task} {Path(model).name}".strip()
        for key, one in tracked(zip(keys, asked, strict=True), description, len(keys)):
            if key not in self.done:
                self.add(ask(key, one))
        return [self.done[key] for key in keys]


def journal_beside(
    output: Path | None, settings: dict[str, Any], asked: list[Any], models: list[str], searched: list[Document]
) -> Journal:
    """
    The journal of an evaluation, beside its figures.

    :param output: file of the figures; None for a journal in memory.
    :param settings: of the run.
    :param asked: the questions; answers to others are refused, as are those of models that have changed.
    :param models: folders or hub ids.
    :param searched: the documents that passages are found among.
    """
    if output is None:
        return Journal(None, {})
    versions = [(Path(model).name, digest_of_model(model)) for model in models]
    known_by = {"questions": digest(asked), "searched": digest([one.content for one in searched])}
    return Journal(output.with_suffix(JOURNAL), settings | known_by | {"models": versions})


def digest(items: list[Any]) -> str:
    """Digest of things by what they look like."""
    return hashlib.blake2b("\n".join(map(repr, items)).encode("utf-8", "replace"), digest_size=8).hexdigest()


def best(outputs: dict[str, Any]) -> tuple[str, float]:
    """The text of a reader's first answer and its score; the empty text where there is none."""
    if not outputs["answers"]:
        return "", -math.inf
    first = outputs["answers"][0]
    return first.data or "", first.score if isinstance(first, ExtractedAnswer) else first.meta["score"]


def means(answers: list[Answer]) -> dict[str, Any]:
    """What answers have in common: how many, milliseconds and passages a question, share that came from the store."""
    count, passages = max(len(answers), 1), sum(answer.passages for answer in answers)
    return {
        "questions": len(answers),
        "ms": sum(answer.ms for answer in answers) / count,
        "passages": passages / count,
        "hits": sum(answer.hits for answer in answers) / max(passages, 1),
    }


def bytes_a_token(reader: Any, row: dict[str, Any], settings: dict[str, Any], output: Path | None) -> float | None:
    """
    What a reader's store takes, in memory without a file's index and pages.

    :param reader: a BTR reader.
    :param row: its other figures.
    :param settings: of the run.
    :param output: figures of an earlier run of the same settings, which count where the store is empty: all answers
        were there already.
    :returns: bytes a token; None for a reader that keeps nothing.
    """
    if reader.token_store is None:
        return None
    if reader.token_store.count_documents():
        found: float = reader.token_store.report().bytes_per_token
        return found
    if output is None or not output.is_file():
        return None
    same = ("task", "model", "teacher")
    try:
        before = json.loads(output.read_text(encoding="utf-8"))
        if any(before.get(name) != value for name, value in json.loads(json.dumps(settings)).items()):
            return None
        return next((one["bytes_a_token"] for one in before["rows"] if all(one[key] == row[key] for key in same)), None)
    except (ValueError, KeyError, TypeError, AttributeError):  # something else, which the figures will replace
        return None
