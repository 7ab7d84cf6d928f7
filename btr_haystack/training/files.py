# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""The files that a stage can be trained on, as paragraphs with questions."""

import json
from pathlib import Path

from btr_haystack.files import lines_of, read_text
from btr_haystack.squad import Paragraph, Question, read_squad
from btr_haystack.tasks import TASKS, Item, read_fever, read_nq

SPOKEN = {"SUPPORTS": "true", "REFUTES": "false", "NOT ENOUGH INFO": "maybe"}


def read_paragraphs(path: str | Path) -> list[Paragraph]:
    """
    Read SQuAD (v1.1 or v2.0), Natural Questions with their paragraphs (QED), or FEVER with its evidence.

    Which of them a file is, its first line tells. Questions of Natural Questions and claims of FEVER become the prompts
    that the tasks have for them, so that a model that writes knows what is wanted; each is an article of its own. The
    sentences of a claim's evidence are one paragraph; a claim without evidence is left out.

    :param path: the file, plain or compressed with gzip.
    :returns: the paragraphs in the order of the file.
    :raises DataError: if the file cannot be read, or has another form.
    """
    path = Path(path)
    match _kind(path):
        case "nq":
            return [_paragraph(path, item, "nq") for item in read_nq(path) if item.passages]
        case "fever":
            return [_paragraph(path, item, "fever") for item in read_fever(path) if item.passages]
        case _:
            return read_squad(path)


def _kind(path: Path) -> str:
    """The task whose form the first line that is not empty has; "squad" where it has none of the others."""
    first = next((line for _, line in lines_of(read_text(path)) if line.strip()), "")
    try:
        entry = json.loads(first)
    except ValueError:
        return "squad"  # over several lines, or broken, which its own reader tells
    keys = entry.keys() if isinstance(entry, dict) else ()
    return "nq" if "question_text" in keys else "fever" if "claim" in keys else "squad"


def _paragraph(path: Path, item: Item, task: str) -> Paragraph:
    asked = TASKS[task].prompt.replace("{query}", item.question)
    answers = tuple(zip(item.answers, item.starts, strict=True)) if item.starts else ()
    label = "" if answers else SPOKEN.get(item.answers[0], "") if item.answers else ""
    question = Question(item.id, asked, answers, label)
    return Paragraph(f"{path.name}/{item.id}", " ".join(item.passages), (question,))
