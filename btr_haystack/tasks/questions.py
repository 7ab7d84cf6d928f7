# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Reading the questions of Natural Questions, TriviaQA, WebQuestions, FEVER and MMLU in the forms they come in."""

import ast
import csv
import io
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from btr_haystack.errors import DataError
from btr_haystack.files import fields_of, lines_of, parsed, read_text, texts_of, value_of

logger = logging.getLogger(__name__)

LABELS = ("SUPPORTS", "REFUTES", "NOT ENOUGH INFO")
LABEL_WORDS = ("true", "false", "maybe")  # for each label the word that is written
CHOICES = "ABCD"

_BRACKETS = {"-LRB-": "(", "-RRB-": ")", "-LSB-": "[", "-RSB-": "]", "-LCB-": "{", "-RCB-": "}"}
_BRACKET = re.compile("-[LR][RSC]B-")
_DESCRIPTION = re.compile(r'\(description\s+(?:"((?:[^"\\]|\\.)*)"|([^\s()"][^()"]*))\)')
_DESCRIPTIONS = re.compile(rf"\(list(?:\s*{_DESCRIPTION.pattern})*\s*\)")
_LETTERS = {**{letter: letter for letter in CHOICES}, **{str(i): letter for i, letter in enumerate(CHOICES)}}
_MMLU_COLUMNS = len(CHOICES) + 2
_MMLU_NAME = re.compile(r"(.+?)(?:_(?:test|dev|val))?\.csv(?:\.gz)?")


@dataclass(frozen=True, slots=True)
class Item:
    """
    What is asked: a question or a claim, its accepted answers, the gold texts that come with it, and its choices.

    The first answer is the one to learn where the file names one; an item of multiple choice has the letter for answer.
    Where the answers stand in the first passage, `starts` has the first character of each.
    """

    id: str
    question: str
    answers: tuple[str, ...]
    passages: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    starts: tuple[int, ...] = ()


def read_nq(path: str | Path) -> list[Item]:
    """
    Read Natural Questions: NQ-open, QED (with the gold paragraph), or a file that `read_dpr` reads.

    NQ-open has a line `{"question": "...", "answer": ["...", ...]}` for each question. Of QED, answers that do not
    stand at their place in the paragraph are dropped, and so are questions left without any, with one warning.

    :param path: The file, plain or compressed with gzip.
    :returns: The questions in the order of the file; the id is the file's own, or else the number of the line.
    :raises DataError: If the file cannot be read, holds no question or has another form.
    """
    path = Path(path)
    text = read_text(path)
    if not _is_json(text):
        return _dpr_items(path, text)
    items, answers_dropped, questions_dropped = [], 0, 0
    for place, number, entry in _json_lines(path, text):
        if isinstance(entry, dict) and "question_text" in entry:
            item, dropped = _qed_item(entry, number, place)
            answers_dropped += dropped
            if dropped and not item.answers:
                questions_dropped += 1
                continue
        else:
            key = "answers" if isinstance(entry, dict) and "answers" in entry else "answer"
            question = value_of(entry, "question", str, place)
            answers = texts_of(value_of(entry, key, list, place), key, place)
            item = Item(_id_of(entry, "id", number, place), question, answers)
        items.append(item)
    if answers_dropped:
        logger.warning(
            "%s: dropped %d answers that do not stand at their place, and %d questions left without any answer",
            path,
            answers_dropped,
            questions_dropped,
        )
    return _some(path, items)


def read_dpr(path: str | Path) -> list[Item]:
    r"""
    Read the questions of DPR, such as nq-test.qa.csv: a question, a tab, and a Python list of its answers in each line.

    :param path: The file, plain or compressed with gzip; a field may be quoted as in csv.
    :returns: The questions in the order of the file; the id is the number of the line.
    :raises DataError: If the file cannot be read, holds no question or has another form.
    """
    path = Path(path)
    return _dpr_items(path, read_text(path))


def read_triviaqa(path: str | Path) -> list[Item]:
    """
    Read TriviaQA: its original JSON, or a file that `read_dpr` reads.

    :param path: The file, plain or compressed with gzip.
    :returns: The questions in the order of the file. The first answer of the original JSON is its `Value`, those that
        follow are the `Aliases`.
    :raises DataError: If the file cannot be read, holds no question or has another form.
    """
    path = Path(path)
    text = read_text(path)
    if not _is_json(text):
        return _dpr_items(path, text)
    items = []
    for i, entry in enumerate(value_of(parsed(text, path), "Data", list, str(path))):
        place = f"{path}: Data[{i}]"
        question = value_of(entry, "Question", str, place)
        answer = value_of(entry, "Answer", dict, place)
        first = value_of(answer, "Value", str, f"{place}.Answer")
        aliases = texts_of(value_of(answer, "Aliases", list, f"{place}.Answer"), "Aliases", f"{place}.Answer")
        id_ = value_of(entry, "QuestionId", str, place)
        items.append(Item(id_, question, tuple(dict.fromkeys((first, *aliases)))))
    return _some(path, items)


def read_webquestions(path: str | Path) -> list[Item]:
    r"""
    Read WebQuestions: the original of Stanford, the edition with ids of brmson, or a file that `read_dpr` reads.

    The original is a list of `{"utterance": "...", "targetValue": "(list (description \"A b\") (description C))"}`, the
    edition one of `{"qId": "...", "qText": "...", "answers": ["A b", "C"]}`; "questionText" will do for "qText".

    :param path: The file, plain or compressed with gzip.
    :returns: The questions in the order of the file; without an own id, a question has its number, from 1.
    :raises DataError: If the file cannot be read, holds no question or has another form.
    """
    path = Path(path)
    text = read_text(path)
    if not _is_json(text):
        return _dpr_items(path, text)
    entries = parsed(text, path)
    if not isinstance(entries, list):
        msg = f"{path}: expected a list of questions, found {entries!r:.50}"
        raise DataError(msg)
    items = []
    for i, entry in enumerate(entries):
        place = f"{path}: [{i}]"
        if isinstance(entry, dict) and "targetValue" in entry:
            question = value_of(entry, "utterance", str, place)
            answers = _descriptions(value_of(entry, "targetValue", str, place), place)
        else:
            key = "questionText" if isinstance(entry, dict) and "questionText" in entry else "qText"
            question = value_of(entry, key, str, place)
            answers = texts_of(value_of(entry, "answers", list, place), "answers", place)
        items.append(Item(_id_of(entry, "qId", i + 1, place), question, answers))
    return _some(path, items)


def read_fever(path: str | Path) -> list[Item]:
    """
    Read FEVER: a line `{"claim": "...", "label": "SUPPORTS", "evidence": ["...", ...]}` for each claim.

    The sentences of a claim's evidence become one passage, with "-LRB-" and the like turned back into brackets. The
    files of fever.ai name pages and lines in place of sentences: their claims have no passage.

    :param path: The file, plain or compressed with gzip.
    :returns: The claims in the order of the file, the label being the only answer; the id is the file's own, or else
        the number of the line.
    :raises DataError: If the file cannot be read, holds no claim or has another form.
    """
    path = Path(path)
    items = []
    for place, number, entry in _json_lines(path, read_text(path)):
        claim = value_of(entry, "claim", str, place)
        label = value_of(entry, "label", str, place)
        if label.upper() not in LABELS:
            msg = f"{place}: the label is {label!r:.50}; expected one of {', '.join(LABELS)}"
            raise DataError(msg)
        evidence = value_of(entry, "evidence", list, place) if "evidence" in entry else []
        sentences = texts_of([one for one in evidence if not isinstance(one, list)], "evidence", place)
        passage = " ".join(map(_with_brackets, sentences))
        passages = (passage,) if passage.strip() else ()
        items.append(Item(_id_of(entry, "id", number, place), claim, (label.upper(),), passages))
    return _some(path, items)


def read_mmlu(path: str | Path) -> list[Item]:
    """
    Read MMLU: the csv file of a subject, or a folder with those of several.

    A row is a question, four choices, and the letter of the right one or its index from 0. A header that ends in
    "answer" may come first.

    :param path: The file, plain or compressed with gzip, or the folder; a file's name without _test, _dev or _val is
        the subject.
    :returns: The questions, subject by subject, with ids such as "anatomy/1"; the answer is the letter.
    :raises DataError: If a file cannot be read, holds no question or has another form, or a folder has none or two
        files of a subject.
    """
    path = Path(path)
    if not path.is_dir():
        return _mmlu_items(path, _subject(path) or path.name)
    subjects: dict[str, Path] = {}
    for file in sorted(path.iterdir()):
        subject = _subject(file)
        if subject is None:
            continue
        if subject in subjects:
            msg = (
                f"{path}: both {subjects[subject].name} and {file.name} hold {subject}; expected one file of a subject"
            )
            raise DataError(msg)
        subjects[subject] = file
    if not subjects:
        msg = f"{path}: no csv file in this folder; expected one for each subject"
        raise DataError(msg)
    return [item for subject, file in subjects.items() for item in _mmlu_items(file, subject)]


def _is_json(text: str) -> bool:
    return text.lstrip().startswith(("{", "["))


def _some(path: Path, items: list[Item]) -> list[Item]:
    if not items:
        msg = f"{path}: empty; expected questions"
        raise DataError(msg)
    return items


def _json_lines(path: Path, text: str) -> Iterator[tuple[str, int, Any]]:
    for number, line in lines_of(text):
        yield f"{path}, line {number}", number, parsed(line, path, number)


def _id_of(entry: dict[str, Any], key: str, number: int, place: str) -> str:
    id_ = entry.get(key, number)
    if not isinstance(id_, (str, int)) or isinstance(id_, bool):
        msg = f"{place}: the value of {key!r} is {id_!r:.50}; expected a text or a number"
        raise DataError(msg)
    return str(id_)


def _qed_item(entry: dict[str, Any], number: int, place: str) -> tuple[Item, int]:
    """
    The question of a line of QED, and how many of its answers were dropped.
    """
    question = value_of(entry, "question_text", str, place)
    paragraph = value_of(entry, "paragraph_text", str, place)
    texts, spans = (value_of(entry, key, list, place) for key in ("answer_text", "answer_spans"))
    if len(texts) != len(spans):
        msg = f"{place}: found {len(texts)} answers with {len(spans)} spans; expected one span for each"
        raise DataError(msg)
    answers, starts = [], []
    for text, span in zip(texts, spans, strict=True):
        match text, span:
            case str(), [int(start), int(end)]:
                if text.strip() and start >= 0 and paragraph[start:end] == text:
                    answers.append(text)
                    starts.append(start)
            case _:
                msg = f"{place}: found the answer {text!r:.50} at {span!r:.50}; expected a text and [start, end]"
                raise DataError(msg)
    id_ = _id_of(entry, "example_id", number, place)
    item = Item(id_, question, tuple(answers), (paragraph,), starts=tuple(starts))
    return item, len(texts) - len(answers)


def _dpr_items(path: Path, text: str) -> list[Item]:
    items = []
    for number, line in lines_of(text):
        place = f"{path}, line {number}"
        fields = fields_of(line, 2)
        if len(fields) != 2 or not fields[0].strip():  # noqa: PLR2004
            msg = f"{place}: expected a question, a tab and a list of answers, found {line!r:.80}"
            raise DataError(msg)
        try:
            answers = ast.literal_eval(fields[1].strip())
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
            msg = f"{place}: expected a Python list of answers, found {fields[1]!r:.50}"
            raise DataError(msg) from error
        items.append(Item(str(number), fields[0], texts_of(answers, "answers", place)))
    return _some(path, items)


def _descriptions(target: str, place: str) -> tuple[str, ...]:
    if not _DESCRIPTIONS.fullmatch(target.strip()):
        msg = f'{place}: the targetValue is {target!r:.80}; expected (list (description A) (description "B C"))'
        raise DataError(msg)
    found = (re.sub(r"\\(.)", r"\1", quoted) or bare.strip() for quoted, bare in _DESCRIPTION.findall(target))
    return tuple(text for text in found if text.strip())


def _with_brackets(sentence: str) -> str:
    return _BRACKET.sub(lambda match: _BRACKETS[match[0]], sentence)


def _subject(file: Path) -> str | None:
    if file.name.startswith("."):  # archives made on a Mac hold a ._x.csv for each x.csv
        return None
    match = _MMLU_NAME.fullmatch(file.name)
    return match and match[1]


def _mmlu_items(path: Path, subject: str) -> list[Item]:
    items: list[Item] = []
    rows = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    number = 1
    try:
        for i, row in enumerate(rows):
            place, number = f"{path}, line {number}", rows.line_num + 1  # a row may take several lines: name its first
            if not any(field.strip() for field in row) or (i == 0 and row[-1].strip().lower() == "answer"):
                continue
            if len(row) != _MMLU_COLUMNS:
                msg = f"{place}: found {len(row)} columns; expected a question, {len(CHOICES)} choices and the answer"
                raise DataError(msg)
            question, *choices, answer = row
            letter = _LETTERS.get(answer.strip())
            if letter is None or not question.strip():
                msg = f"{place}: the answer to {question!r:.50} is {answer!r:.50}; expected one of {CHOICES} or 0 to 3"
                raise DataError(msg)
            items.append(Item(f"{subject}/{len(items) + 1}", question, (letter,), (), tuple(choices)))
    except csv.Error as error:
        msg = f"{path}, line {number}: not csv: {error}"
        raise DataError(msg) from error
    return _some(path, items)
