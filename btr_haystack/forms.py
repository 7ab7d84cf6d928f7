# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""The forms that files of questions come in, told by what stands in them and not by their names."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import Any

from btr_haystack.display import shown
from btr_haystack.errors import DataError
from btr_haystack.files import is_table, read_lines, read_values

logger = logging.getLogger(__name__)

_LISTS = ("data", "Data")  # keys of an object under which a file's entries stand


class Form(StrEnum):
    """What an entry of a file is, the task of `TASKS` that reads it, if any, and the keys that it has."""

    SQUAD = "SQuAD {data: [{paragraphs: [{context, qas}]}]}"
    ROWS = "rows of SQuAD {id, title, context, question, answers: {text, answer_start}}"
    PASSAGES = "questions with passages, as of DPR and FiD (task nq) {question, answers, ctxs: [{title, text}]}"
    OPEN = "questions alone, as of NQ-open (task nq) {question, answer: [...]}"
    QED = "QED (task nq) {question_text, paragraph_text, answer_text}"
    TRIVIAQA = "TriviaQA (task triviaqa) {Data: [{Question, QuestionId, Answer}]}"
    WEBQUESTIONS = "WebQuestions (task webquestions) {utterance, targetValue} or {qText, answers}"
    FEVER = "FEVER (task fever) {claim, label, evidence}"


_KEYS: dict[tuple[str, ...], Form] = {  # the first form whose keys an entry has
    ("paragraphs",): Form.SQUAD,
    ("question", "context"): Form.ROWS,
    ("question", "ctxs"): Form.PASSAGES,
    ("question", "positive_ctxs"): Form.PASSAGES,
    ("question", "answer"): Form.OPEN,
    ("question", "answers"): Form.OPEN,
    ("question", "target"): Form.OPEN,
    ("question_text", "paragraph_text"): Form.QED,
    ("claim",): Form.FEVER,
    ("Question",): Form.TRIVIAQA,
    ("utterance",): Form.WEBQUESTIONS,
    ("qText",): Form.WEBQUESTIONS,
    ("questionText",): Form.WEBQUESTIONS,
}


@dataclass(frozen=True, slots=True)
class Entry:
    """
    What stands in a file for one question, or for an article of SQuAD: its form, its place, and its number from 1.
    """

    value: dict[str, Any]
    form: Form
    place: str
    number: int


def read_entries(path: Path, forms: Sequence[Form]) -> Iterator[Entry]:
    """
    Read the entries of a file: JSON lines, rows of Parquet, one JSON list, or one under the key "data" of an object.

    The form that is found is logged (INFO).

    :param path: The file, plain or compressed with gzip.
    :param forms: The forms that are expected.
    :returns: The entries, at least one. Failures of all but the first show when the iteration comes to them.
    :raises DataError: If the file cannot be read, holds no entry, or an entry is of no expected form; it names the form
        that was found and those that are expected.
    :raises ImportError: For a Parquet file, without the package `pyarrow`.
    """
    first, others = _begun(path, forms)
    logger.info("%s: read as %s", shown(str(path)), first.form)
    return chain([first], others)


def form_of(path: str | Path) -> Form:
    """
    Tell the form of a file by its first entry.

    :param path: The file, plain or compressed with gzip.
    :returns: The form.
    :raises DataError: If the file cannot be read, or is of no form that is known.
    """
    return _begun(Path(path), tuple(Form))[0].form


def _begun(path: Path, forms: Sequence[Form]) -> tuple[Entry, Iterator[Entry]]:
    """The first entry, and the others."""
    if is_table(path):
        number, line = next(read_lines(path))
        msg = f"{path}, line {number}: not JSON: found {line!r:.80}; expected {_told(forms)}"
        raise DataError(msg)
    entries = _entries(path, forms)
    first = next(entries, None)
    if first is None:
        msg = f"{path}: empty; expected questions: {_told(forms)}"
        raise DataError(msg)
    return first, entries


def _entries(path: Path, forms: Sequence[Form]) -> Iterator[Entry]:
    for place, number, value in _values(path):
        keys = value.keys() if isinstance(value, dict) else ()
        form = next((form for needed, form in _KEYS.items() if all(key in keys for key in needed)), None)
        if form is None or form not in forms:
            found = f"found the keys {', '.join(map(repr, list(keys)[:10]))}" if keys else f"found {value!r:.50}"
            known = f", as of {form}" if form else ""
            msg = f"{place}: {found}{known}; expected {_told(forms)}"
            raise DataError(msg)
        yield Entry(value, form, place, number)


def _values(path: Path) -> Iterator[tuple[str, int, Any]]:
    for place, number, value in read_values(path):
        name = next((key for key in _LISTS if isinstance(value, dict) and isinstance(value.get(key), list)), "")
        if name or isinstance(value, list):
            many = value[name] if name else value
            yield from ((f"{path}: {name}[{i}]", i + 1, one) for i, one in enumerate(many))
        else:
            yield place, number, value


def _told(forms: Sequence[Form]) -> str:
    return "; ".join(forms) + "; as JSON, JSON lines or Parquet"
