# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Reading questions with their paragraphs: SQuAD v1.1 and v2.0, in the original format or as rows."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from btr_haystack.errors import DataError
from btr_haystack.forms import Entry, Form, read_entries
from btr_haystack.occurrences import trimmed

SQUAD_FORMS = (Form.SQUAD, Form.ROWS)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Question:
    """
    A question with its accepted answers, each a text and its first character in the paragraph; none: unanswerable.

    The first character is what the file says, which may be wrong, and -1 where it says none: `nearest` tells it.
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
    Read SQuAD v1.1 or v2.0: the original JSON, or rows as the library `datasets` has them.

    A row is `{"id", "title", "context", "question", "answers": {"text": [...], "answer_start": [...]}}`, as JSON lines,
    a JSON list, a list under "data", or Parquet; answers may be a list of objects, too. Rows of one context are one
    paragraph. The content tells the form. An article may have no title, a row no id; ids may be numbers.

    Every question with an answer's text is kept, whatever its offset says. One without answers is unanswerable where
    it is said to be impossible or its list of answers is empty; where it says neither, or has blank answers alone, it
    is left out, and one warning tells how many were.

    :param path: The file, plain or compressed with gzip. Its content, not its name, tells what it is.
    :returns: The paragraphs in the order of the file.
    :raises DataError: If the file cannot be read, or is of another form, which is named.
    :raises ImportError: For a Parquet file, without the package `pyarrow`.
    """
    path = Path(path)
    return paragraphs_of(read_entries(path, SQUAD_FORMS), path)


def paragraphs_of(entries: Iterable[Entry], path: Path) -> list[Paragraph]:
    """
    Make paragraphs of what `read_entries` found.

    :param entries: Articles and rows of SQuAD.
    :param path: The file, for the warning.
    :returns: What `read_squad` gives.
    :raises DataError: If a value is missing or of another type.
    """
    found: list[tuple[str, str, list[Question | None]]] = []
    contexts: dict[str, list[Question | None]] = {}
    for entry in entries:
        if entry.form is Form.SQUAD:
            found += _of_article(entry)
            continue
        context = _value(entry.value, "context", str, entry.place)
        if context not in contexts:
            contexts[context] = []
            found.append((_value(entry.value, "title", str, entry.place, ""), context, contexts[context]))
        contexts[context].append(_question(entry.value, entry.place, str(entry.number)))
    paragraphs = [Paragraph(title, text, tuple(filter(None, questions))) for title, text, questions in found]
    if left_out := sum(questions.count(None) for _, _, questions in found):
        logger.warning(
            "%s: left out %d questions that have no text of an answer and are not said to be unanswerable",
            path,
            left_out,
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
    :returns: In order of first appearance; of questions with the same id and text the first.
    """
    found: dict[tuple[str, str], dict[tuple[str, str], Question]] = {}
    for paragraph in paragraphs:
        questions = found.setdefault((paragraph.title, paragraph.text), {})
        for question in paragraph.questions:
            questions.setdefault((question.id, question.text), question)
    return [Paragraph(title, text, tuple(questions.values())) for (title, text), questions in found.items()]


def _of_article(entry: Entry) -> Iterator[tuple[str, str, list[Question | None]]]:
    """
    Title, text and questions of the article's paragraphs; None for a question that is left out.
    """
    title = _value(entry.value, "title", str, entry.place, "")
    for p, paragraph in enumerate(_value(entry.value, "paragraphs", list, entry.place)):
        place = f"{entry.place}.paragraphs[{p}]"
        asked = _value(paragraph, "qas", list, place)
        questions = [_question(item, f"{place}.qas[{q}]") for q, item in enumerate(asked)]
        yield title, _value(paragraph, "context", str, place), questions


def _question(item: Any, place: str, number: str | None = None) -> Question | None:
    id_ = str(_value(item, "id", (str, int), place, number))
    text = _value(item, "question", str, place)
    if _value(item, "is_impossible", bool, place, False):
        return Question(id_, text, ())
    entries = _value(item, "answers", (list, dict), place, {"text": [""]})
    answers = list(_of_columns(entries, place) if isinstance(entries, dict) else _of_list(entries, place))
    told = tuple((answer, start) for answer, start in answers if trimmed(answer))
    return Question(id_, text, told) if told or not answers else None


def _of_list(entries: list[Any], place: str) -> Iterator[tuple[str, int]]:
    for i, entry in enumerate(entries):
        if isinstance(entry, str):
            yield entry, -1
        else:
            here = f"{place}.answers[{i}]"
            yield _value(entry, "text", str, here), _start(entry.get("answer_start"))


def _of_columns(columns: dict[str, Any], place: str) -> Iterator[tuple[str, int]]:
    texts, starts = columns.get("text"), columns.get("answer_start")
    if texts is None or isinstance(texts, str):
        texts, starts = [texts or ""], [starts]
    starts = starts if isinstance(starts, list) else []
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        msg = f"{place}.answers: the value of 'text' is {texts!r:.50}; expected a list of texts"
        raise DataError(msg)
    for i, text in enumerate(texts):
        yield text, _start(starts[i]) if i < len(starts) else -1


def _start(value: Any) -> int:
    """
    A place in a text; -1 for what can be none.
    """
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return int(value) if whole and not isinstance(value, bool) and value >= 0 else -1


def _value(item: Any, key: str, kind: type | tuple[type, ...], place: str, default: Any = None) -> Any:
    """
    Look up a value of a JSON object; null counts as missing.
    """
    if not isinstance(item, dict):
        msg = f"{place}: expected an object with the key {key!r}, found {item!r:.50}"
        raise DataError(msg)
    value = default if item.get(key) is None else item[key]
    if value is None:
        msg = f"{place}: the key {key!r} is missing; found {', '.join(map(repr, list(item)[:10])) or 'no key'}"
        raise DataError(msg)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        kinds = " or ".join(one.__name__ for one in (kind if isinstance(kind, tuple) else (kind,)))
        msg = f"{place}: {key!r} must be of type {kinds}, not {value!r:.50}"
        raise DataError(msg)
    return value
