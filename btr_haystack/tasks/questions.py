# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Reading the questions of Natural Questions, TriviaQA, WebQuestions, FEVER and MMLU in the forms they come in."""

import ast
import csv
import io
import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from btr_haystack.errors import DataError
from btr_haystack.files import fields_of, is_table, lines_of, read_text, texts_of, value_of
from btr_haystack.forms import Entry, Form, read_entries
from btr_haystack.occurrences import trimmed
from btr_haystack.squad import SQUAD_FORMS, paragraphs_of

logger = logging.getLogger(__name__)

LABELS = ("SUPPORTS", "REFUTES", "NOT ENOUGH INFO")
LABEL_WORDS = ("true", "false", "maybe")  # for each label the word that is written
CHOICES = "ABCD"
OPEN_FORMS = (Form.OPEN, Form.PASSAGES, Form.QED, *SQUAD_FORMS, Form.TRIVIAQA, Form.WEBQUESTIONS)

_IDS = ("id", "question_id", "example_id", "QuestionId", "qId")
_CTXS = ("ctxs", "positive_ctxs", "hard_negative_ctxs", "negative_ctxs")
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
    What is asked: a question or a claim, its accepted answers, the texts that come with it, and its choices.

    The first answer is the one to learn where the file names one; an item of multiple choice has the letter for answer.
    Where the answers stand in the first passage, `starts` has the first character of each, as the file says, or -1.
    The passages are gold texts, or what a retriever found, best first (`retrieved`); they may have titles.
    """

    id: str
    question: str
    answers: tuple[str, ...]
    passages: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    starts: tuple[int, ...] = ()
    titles: tuple[str, ...] = ()
    retrieved: bool = False


def read_nq(path: str | Path) -> list[Item]:
    """
    Read Natural Questions, or the questions of any other open task: what stands in the file tells its form.

    - NQ-open: `{"question": "...", "answer": ["...", ...]}`, or "answers"; rows of TriviaQA, as the library `datasets`
      has them, whose answer is `{"value": "...", "aliases": [...]}`
    - DPR and FiD: the same with "ctxs", a list of `{"title": "...", "text": "..."}`, which are the question's
      passages, best first; FiD's "target" is the first answer. Of DPR's training files, these are "positive_ctxs",
      then "hard_negative_ctxs" and "negative_ctxs"
    - QED and SQuAD (`read_squad`), whose questions have their gold paragraph
    - the originals of TriviaQA and WebQuestions, and files that `read_dpr` reads

    All but the last come as JSON lines, a JSON list, a list under "data" or "Data", or Parquet. Every question with
    an answer's text is kept. Of QED and SQuAD, questions that have blank answers alone are left out, with one warning.

    :param path: The file, plain or compressed with gzip. Its content, not its name, tells what it is.
    :returns: The questions in the order of the file; the id is the file's own, or else the number of the line or entry.
    :raises DataError: If the file cannot be read, holds no question or has another form.
    :raises ImportError: For a Parquet file, without the package `pyarrow`.
    """
    path = Path(path)
    if is_table(path):
        return _dpr_items(path, read_text(path))
    return items_of(read_entries(path, OPEN_FORMS), path)


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
    Read TriviaQA: its original JSON, or any other form that `read_nq` reads, such as FiD's.

    :param path: The file, plain or compressed with gzip.
    :returns: The questions in the order of the file. The first answer of the original JSON is its `Value`, those that
        follow are the `Aliases`.
    :raises DataError: If the file cannot be read, holds no question or has another form.
    :raises ImportError: For a Parquet file, without the package `pyarrow`.
    """
    return read_nq(path)


def read_webquestions(path: str | Path) -> list[Item]:
    r"""
    Read WebQuestions: the original of Stanford, the edition with ids of brmson, or any form that `read_nq` reads.

    The original is a list of `{"utterance": "...", "targetValue": "(list (description \"A b\") (description C))"}`, the
    edition one of `{"qId": "...", "qText": "...", "answers": ["A b", "C"]}`; "questionText" will do for "qText".

    :param path: The file, plain or compressed with gzip.
    :returns: The questions in the order of the file; without an own id, a question has its number, from 1.
    :raises DataError: If the file cannot be read, holds no question or has another form.
    :raises ImportError: For a Parquet file, without the package `pyarrow`.
    """
    return read_nq(path)


def items_of(entries: Iterator[Entry], path: Path) -> list[Item]:
    """
    Make items of what `read_entries` found.

    :param entries: Of `OPEN_FORMS`.
    :param path: The file, for the warning.
    :returns: What `read_nq` gives.
    :raises DataError: If a value is missing or of another type.
    """
    items: list[Item] = []
    blank = 0
    for entry in entries:
        if entry.form in SQUAD_FORMS:
            return items + _squad_items(chain([entry], entries), path)
        if entry.form not in _READ:
            msg = f"{entry.place}: found {entry.form} among other questions; expected one form in a file"
            raise DataError(msg)
        item = _READ[entry.form](entry)
        if entry.form is Form.QED and not item.answers and entry.value["answer_text"]:
            blank += 1
        else:
            items.append(item)
    if blank:
        logger.warning("%s: left out %d questions with nothing but blank answers", path, blank)
    return items


def read_fever(path: str | Path) -> list[Item]:
    """
    Read FEVER: `{"claim": "...", "label": "SUPPORTS", "evidence": ["...", ...]}` for each claim.

    They come as JSON lines, a JSON list, a list under "data", or Parquet.

    The sentences of a claim's evidence become one passage, with "-LRB-" and the like turned back into brackets. The
    files of fever.ai name pages and lines in place of sentences: their claims have no passage.

    :param path: The file, plain or compressed with gzip.
    :returns: The claims in the order of the file, the label being the only answer; the id is the file's own, or else
        the number of the line.
    :raises DataError: If the file cannot be read, holds no claim or has another form.
    """
    return fever_items(read_entries(Path(path), (Form.FEVER,)))


def fever_items(entries: Iterable[Entry]) -> list[Item]:
    """
    Make items of what `read_entries` found.

    :param entries: Of FEVER.
    :returns: What `read_fever` gives.
    :raises DataError: If a value is missing or of another type.
    """
    items = []
    for entry in entries:
        place, value = entry.place, entry.value
        claim = value_of(value, "claim", str, place)
        label = value_of(value, "label", str, place)
        if label.upper() not in LABELS:
            msg = f"{place}: the label is {label!r:.50}; expected one of {', '.join(LABELS)}"
            raise DataError(msg)
        evidence = value_of(value, "evidence", list, place) if value.get("evidence") is not None else []
        sentences = texts_of([one for one in evidence if not isinstance(one, list)], "evidence", place)
        passage = " ".join(map(_with_brackets, sentences))
        passages = (passage,) if passage.strip() else ()
        items.append(Item(_id_of(entry), claim, (label.upper(),), passages))
    return items


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


def _some(path: Path, items: list[Item]) -> list[Item]:
    if not items:
        msg = f"{path}: empty; expected questions"
        raise DataError(msg)
    return items


def _id_of(entry: Entry) -> str:
    key = next((key for key in _IDS if entry.value.get(key) is not None), None)
    id_ = entry.number if key is None else entry.value[key]
    if not isinstance(id_, (str, int)) or isinstance(id_, bool):
        msg = f"{entry.place}: the value of {key!r} is {id_!r:.50}; expected a text or a number"
        raise DataError(msg)
    return str(id_)


def _open_item(entry: Entry) -> Item:
    question = value_of(entry.value, "question", str, entry.place)
    return Item(_id_of(entry), question, _answers(entry))


def _answers(entry: Entry) -> tuple[str, ...]:
    value, place = entry.value, entry.place
    if isinstance(value.get("answer"), dict):  # TriviaQA as the library datasets has it
        answer = value["answer"]
        aliases = texts_of(value_of(answer, "aliases", list, f"{place}.answer"), "aliases", f"{place}.answer")
        return tuple(dict.fromkeys((value_of(answer, "value", str, f"{place}.answer"), *aliases)))
    first = () if value.get("target") is None else texts_of([value["target"]], "target", place)
    key = "answers" if "answers" in value else "answer"
    if first and key not in value:
        return first
    return tuple(dict.fromkeys((*first, *texts_of(value_of(value, key, list, place), key, place))))


def _passages_item(entry: Entry) -> Item:
    question = value_of(entry.value, "question", str, entry.place)
    found: list[tuple[str, str]] = []
    for key in _CTXS:
        every = [] if entry.value.get(key) is None else value_of(entry.value, key, list, entry.place)
        for i, one in enumerate(every):
            text = one.get("text") if isinstance(one, dict) else None
            if not isinstance(text, str):
                msg = f'{entry.place}.{key}[{i}]: expected {{"title": "...", "text": "..."}}, found {one!r:.80}'
                raise DataError(msg)
            found.append((text, str(one.get("title") or "")))
    texts, titles = zip(*found, strict=True) if found else ((), ())
    return Item(_id_of(entry), question, _answers(entry), texts, titles=titles, retrieved=bool(texts))


def _qed_item(entry: Entry) -> Item:
    value, place = entry.value, entry.place
    question = value_of(value, "question_text", str, place)
    paragraph = value_of(value, "paragraph_text", str, place)
    texts = value_of(value, "answer_text", list, place)
    spans = value.get("answer_spans")
    spans = spans if isinstance(spans, list) and len(spans) == len(texts) else [None] * len(texts)
    answers, starts = [], []
    for text, span in zip(texts, spans, strict=True):
        if texts_of([text], "answer_text", place) and trimmed(text):
            answers.append(text)
            match span:
                case [int(start), *_] if start >= 0:
                    starts.append(start)
                case _:
                    starts.append(-1)
    return Item(_id_of(entry), question, tuple(answers), (paragraph,), starts=tuple(starts))


def _squad_items(entries: Iterable[Entry], path: Path) -> list[Item]:
    return [
        Item(
            question.id, question.text, tuple(text for text, _ in question.answers), (paragraph.text,),
            starts=tuple(start for _, start in question.answers), titles=(paragraph.title,),
        )
        for paragraph in paragraphs_of(entries, path)
        for question in paragraph.questions
    ]  # fmt: skip


def _triviaqa_item(entry: Entry) -> Item:
    place = entry.place
    question = value_of(entry.value, "Question", str, place)
    answer = value_of(entry.value, "Answer", dict, place)
    first = value_of(answer, "Value", str, f"{place}.Answer")
    aliases = texts_of(value_of(answer, "Aliases", list, f"{place}.Answer"), "Aliases", f"{place}.Answer")
    id_ = value_of(entry.value, "QuestionId", str, place)
    return Item(id_, question, tuple(dict.fromkeys((first, *aliases))))


def _webquestions_item(entry: Entry) -> Item:
    value, place = entry.value, entry.place
    if "targetValue" in value or "utterance" in value:
        question = value_of(value, "utterance", str, place)
        answers = _descriptions(value_of(value, "targetValue", str, place), place)
    else:
        question = value_of(value, "questionText" if "questionText" in value else "qText", str, place)
        answers = texts_of(value_of(value, "answers", list, place), "answers", place)
    return Item(_id_of(entry), question, answers)


_READ = {
    Form.OPEN: _open_item,
    Form.PASSAGES: _passages_item,
    Form.QED: _qed_item,
    Form.TRIVIAQA: _triviaqa_item,
    Form.WEBQUESTIONS: _webquestions_item,
}


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
