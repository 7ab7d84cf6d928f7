# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""The files that a stage can be trained on, as paragraphs with questions."""

import json
import logging
from pathlib import Path

from btr_haystack.errors import DataError
from btr_haystack.files import lines_of, read_text
from btr_haystack.squad import Paragraph, Question, read_squad
from btr_haystack.tasks import TASKS, Item, read_fever, read_nq
from btr_haystack.tasks.questions import LABEL_WORDS, LABELS

SPOKEN = dict(zip(LABELS, LABEL_WORDS, strict=True))
KEYS = {"question_text": "nq", "claim": "fever", "question": "questions"}  # of a line of each kind of file

logger = logging.getLogger(__name__)


def read_paragraphs(path: str | Path) -> list[Paragraph]:
    """
    Read SQuAD (v1.1 or v2.0), Natural Questions with their paragraphs (QED), or FEVER with its evidence.

    Which of them a file is, its first line tells. Questions of Natural Questions and claims of FEVER become the prompts
    that the tasks have for them, so that a model that writes knows what is wanted; each is an article of its own. The
    sentences of a claim's evidence are one paragraph. What comes without a paragraph is left out, with one warning.

    :param path: the file, plain or compressed with gzip.
    :returns: the paragraphs in the order of the file.
    :raises DataError: if the file cannot be read, has another form, or comes without any paragraph.
    """
    path = Path(path)
    task = task_of(path)
    if task == "squad":
        return read_squad(path)
    if task == "questions":
        msg = f"{path}: questions without paragraphs, such as those of NQ-open, cannot be trained on; expected QED"
        raise DataError(msg)
    items = read_nq(path) if task == "nq" else read_fever(path)
    whole = [item for item in items if item.passages]
    if not whole:
        msg = (
            f"{path}: none of {len(items)} claims comes with the text of its evidence (those of fever.ai name pages "
            'and lines); expected "evidence": ["a sentence", ...]'
        )
        raise DataError(msg)
    if len(whole) < len(items):
        logger.warning("%s: left out %d claims without the text of their evidence", path, len(items) - len(whole))
    return [_paragraph(path, item, task) for item in whole]


def task_of(path: str | Path) -> str:
    """What the first line that is not empty is of; "squad" where it is of nothing else."""
    first = next((line for _, line in lines_of(read_text(Path(path))) if line.strip()), "")
    try:
        entry = json.loads(first)
    except ValueError:
        return "squad"  # over several lines, or broken, which its own reader tells
    keys = entry.keys() if isinstance(entry, dict) else ()
    return next((task for key, task in KEYS.items() if key in keys), "squad")


def _paragraph(path: Path, item: Item, task: str) -> Paragraph:
    """An item with its passages: answers that stand there, or else a label to be written."""
    asked = TASKS[task].prompt.replace("{query}", item.question)
    answers = tuple(zip(item.answers, item.starts, strict=True)) if task == "nq" else ()
    label = SPOKEN[item.answers[0]] if task == "fever" else ""
    question = Question(item.id, asked, answers, label)
    return Paragraph(f"{path.name}/{item.id}", " ".join(item.passages), (question,))
