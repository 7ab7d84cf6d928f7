# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""The files that a stage can be trained on, as paragraphs with questions."""

import dataclasses
import logging
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

from btr_haystack.errors import DataError
from btr_haystack.forms import Form, read_entries
from btr_haystack.occurrences import nearest
from btr_haystack.squad import SQUAD_FORMS, Paragraph, Question, paragraphs_of
from btr_haystack.tasks import TASKS, Item
from btr_haystack.tasks.questions import LABEL_WORDS, LABELS, fever_items, items_of

SPOKEN = dict(zip(LABELS, LABEL_WORDS, strict=True))
WITH_PARAGRAPHS = (*SQUAD_FORMS, Form.QED, Form.PASSAGES, Form.FEVER)

logger = logging.getLogger(__name__)


def read_paragraphs(path: str | Path) -> list[Paragraph]:
    """
    Read SQuAD (`read_squad`), QED, questions with the passages that were found (DPR, FiD), or FEVER with its evidence.

    What stands in the file tells which it is. Questions of all but SQuAD and claims of FEVER become the prompts that
    the tasks have for them, so that a model that writes knows what is wanted; each is an article of its own. The
    sentences of a claim's evidence are one paragraph. Of several passages, the paragraph is the first that has an
    answer. What comes without a paragraph is left out, with one warning.

    Answers get the place where `nearest` finds them, with one warning that tells how many stood elsewhere than the file
    says, or were written differently. A question none of whose answers stands in its paragraph is left out, which the
    warning tells, too: it would pass for an unanswerable one.

    :param path: the file, plain or compressed with gzip.
    :returns: the paragraphs in the order of the file.
    :raises DataError: if the file cannot be read, has another form, or comes without any paragraph.
    :raises ImportError: for a Parquet file, without the package `pyarrow`.
    """
    path = Path(path)
    entries = read_entries(path, tuple(Form))
    first = next(entries)
    entries = chain([first], entries)
    if first.form in SQUAD_FORMS:
        return placed(paragraphs_of(entries, path), path)
    if first.form not in WITH_PARAGRAPHS:
        msg = (
            f"{path}: questions without paragraphs ({first.form}) cannot be trained on; "
            f"expected {'; '.join(WITH_PARAGRAPHS)}"
        )
        raise DataError(msg)
    if first.form is Form.FEVER:
        return _claims(fever_items(entries), path)
    return placed(_questions(items_of(entries, path), path), path)


def placed(paragraphs: Iterable[Paragraph], path: Path) -> list[Paragraph]:
    """
    Put answers where they stand in their paragraphs, as the paragraphs write them.

    :param paragraphs: of a file.
    :param path: the file, for the warning.
    :returns: the paragraphs, without questions none of whose answers is found (`nearest`).
    """
    found: list[Paragraph] = []
    mended = lost = left_out = 0
    for paragraph in paragraphs:
        questions = []
        for question in paragraph.questions:
            answers = []
            for answer in question.answers:
                place = nearest(paragraph.text, *answer)
                if place is None:
                    lost += 1
                else:
                    answers.append((paragraph.text[slice(*place)], place[0]))
                    mended += answers[-1] != answer
            if answers or not question.answers:
                questions.append(dataclasses.replace(question, answers=tuple(answers)))
            else:
                left_out += 1
        found.append(dataclasses.replace(paragraph, questions=tuple(questions)))
    if mended or lost:
        logger.warning(
            "%s: %d answers stand elsewhere than their offset says, or written differently, and were taken from there; "
            "%d answers stand nowhere in their paragraph, and %d questions were left out for that",
            path, mended, lost, left_out,
        )  # fmt: skip
    return found


def _claims(items: list[Item], path: Path) -> list[Paragraph]:
    """Claims with their evidence, their labels to be written."""
    whole = [item for item in items if item.passages]
    if not whole:
        msg = (
            f"{path}: none of {len(items)} claims comes with the text of its evidence (those of fever.ai name pages "
            'and lines); expected "evidence": ["a sentence", ...]'
        )
        raise DataError(msg)
    if len(whole) < len(items):
        logger.warning("%s: left out %d claims without the text of their evidence", path, len(items) - len(whole))
    return [
        Paragraph(
            f"{path.name}/{item.id}", " ".join(item.passages),
            (Question(item.id, _prompt("fever", item), (), SPOKEN[item.answers[0]]),),
        )
        for item in whole
    ]  # fmt: skip


def _questions(items: list[Item], path: Path) -> list[Paragraph]:
    """Questions with their gold passage, or the first passage in which an answer stands."""
    found = [paragraph for item in items if (paragraph := _paragraph(item, path)) is not None]
    if len(found) < len(items):
        logger.warning(
            "%s: left out %d of %d questions, which come with no passage in which an answer of theirs stands",
            path, len(items) - len(found), len(items),
        )  # fmt: skip
    if not found:
        msg = f"{path}: none of {len(items)} questions comes with a passage in which an answer stands"
        raise DataError(msg)
    return found


def _paragraph(item: Item, path: Path) -> Paragraph | None:
    title, asked = f"{path.name}/{item.id}", _prompt("nq", item)
    if not item.retrieved:
        gold = tuple(zip(item.answers, item.starts, strict=False))
        return Paragraph(title, item.passages[0], (Question(item.id, asked, gold),)) if item.passages else None
    for its_title, text in zip(item.titles, item.passages, strict=True):
        places = [place for answer in item.answers if (place := nearest(text, answer, -1)) is not None]
        if places:
            answers = tuple((text[begin:end], begin) for begin, end in places)
            return Paragraph(its_title or title, text, (Question(item.id, asked, answers),))
    return None


def _prompt(task: str, item: Item) -> str:
    return TASKS[task].prompt.replace("{query}", item.question)
