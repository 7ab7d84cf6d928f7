# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Reading question files in the SQuAD v1.1 and v2.0 formats."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from btr_haystack.errors import DataError
from btr_haystack.files import parsed, read_text

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Question:
    """
    A question with its accepted answers, each a text and its first character in the paragraph; none: unanswerable.

    What is to be said of it, but stands in no paragraph, such as whether a claim is true, is its label.
    """

    id: str
    text: str
    answers: tuple[tuple[str, int], ...]
    label: str = ""


@dataclass(frozen=True, slots=True)
class Paragraph:
    """
    A paragraph and the questions asked about it.
    """

    title: str
    text: str
    questions: tuple[Question, ...]


def read_squad(path: str | Path) -> list[Paragraph]:
    """
    Read a file in the SQuAD v1.1 or v2.0 format, plain or compressed with gzip.

    Answers that are not found at their offset are dropped, and so is a question that loses all its answers that way,
    for it would otherwise pass for an unanswerable one; one warning tells how many.
    An article without a title gets the empty one, and an id may be a number.

    :param path: The file. Its content, not its name, tells whether it is compressed.
    :returns: The paragraphs in the order of the file.
    :raises DataError: If the file cannot be read, is not JSON in UTF-8 or does not have the shape of a SQuAD file.
    """
    path = Path(path)
    reader = _Reader(path)
    paragraphs = reader.paragraphs(parsed(read_text(path), path))
    if reader.answers_dropped:
        logger.warning(
            "%s: dropped %d answers that do not stand at their offset, and %d questions left without any answer",
            path,
            reader.answers_dropped,
            reader.questions_dropped,
        )
    return paragraphs


def merged(paragraphs: Iterable[Paragraph]) -> list[Paragraph]:
    """
    One paragraph for each text of an article, with the questions of all files that have it.

    >>> one = Paragraph("Oslo", "Oslo is a town.", (Question("1", "What is Oslo?", (("a town", 8),)),))
    >>> other = Paragraph("Oslo", "Oslo is a town.", (one.questions[0], Question("2", "Who is Oslo?", ())))
    >>> [[question.id for question in found.questions] for found in merged([one, other])]
    [['1', '2']]

    :param paragraphs: Of `read_squad`, one file's behind another's.
    :returns: In order of first appearance; of questions with the same id the first.
    """
    found: dict[tuple[str, str], dict[str, Question]] = {}
    for paragraph in paragraphs:
        questions = found.setdefault((paragraph.title, paragraph.text), {})
        for question in paragraph.questions:
            questions.setdefault(question.id, question)
    return [Paragraph(title, text, tuple(questions.values())) for (title, text), questions in found.items()]


class _Reader:
    """
    The walk through one file: checks every shape on the way and counts what it drops.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answers_dropped = 0
        self.questions_dropped = 0

    def paragraphs(self, root: Any) -> list[Paragraph]:
        found = []
        for a, article in enumerate(self.value(root, "data", list, "")):
            here = f"data[{a}]"
            title = self.value(article, "title", str, here, "")
            for p, paragraph in enumerate(self.value(article, "paragraphs", list, here)):
                found.append(self.paragraph(title, paragraph, f"{here}.paragraphs[{p}]"))
        return found

    def paragraph(self, title: str, item: Any, here: str) -> Paragraph:
        text = self.value(item, "context", str, here)
        questions = []
        for q, entry in enumerate(self.value(item, "qas", list, here)):
            question = self.question(text, entry, f"{here}.qas[{q}]")
            if question is None:
                self.questions_dropped += 1
            else:
                questions.append(question)
        return Paragraph(title, text, tuple(questions))

    def question(self, context: str, item: Any, here: str) -> Question | None:
        id_ = str(self.value(item, "id", (str, int), here))
        text = self.value(item, "question", str, here)
        if self.value(item, "is_impossible", bool, here, False):
            return Question(id_, text, ())
        answers = []
        entries = self.value(item, "answers", list, here)
        for i, entry in enumerate(entries):
            answer = self.value(entry, "text", str, f"{here}.answers[{i}]")
            start = self.value(entry, "answer_start", int, f"{here}.answers[{i}]")
            if answer and start >= 0 and context.startswith(answer, start):
                answers.append((answer, start))
            else:
                self.answers_dropped += 1
        return Question(id_, text, tuple(answers)) if answers or not entries else None

    def value(self, item: Any, key: str, kind: type | tuple[type, ...], here: str, default: Any = None) -> Any:
        where = f" in {here}" if here else ""
        if not isinstance(item, dict):
            msg = f"{self.path}: not in the SQuAD format: an object with the key {key!r} is expected{where}"
            raise DataError(msg)
        value = item.get(key, default)
        if value is None:
            others = ", ".join(map(str, item)) or "none"
            msg = f"{self.path}: not in the SQuAD format: found {others:.80}, but the key {key!r} is missing{where}"
            raise DataError(msg)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            kinds = " or ".join(one.__name__ for one in (kind if isinstance(kind, tuple) else (kind,)))
            msg = f"{self.path}: not in the SQuAD format: {key!r} must be of type {kinds}{where}, not {value!r:.50}"
            raise DataError(msg)
        return value
