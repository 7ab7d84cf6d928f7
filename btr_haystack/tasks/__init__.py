# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""The five tasks of the paper: how their files are read, what a model is asked, and how its answer is scored."""

from typing import TYPE_CHECKING

from btr_haystack._lazy import lazily

if TYPE_CHECKING:
    from btr_haystack.tasks.passages import WikiPassage, read_passages
    from btr_haystack.tasks.questions import (
        Item,
        read_dpr,
        read_fever,
        read_mmlu,
        read_nq,
        read_triviaqa,
        read_webquestions,
    )
    from btr_haystack.tasks.scores import choice_accuracy, label_accuracy, open_exact_match
    from btr_haystack.tasks.task import TASKS, Task, question_of

__all__ = [
    "TASKS",
    "Item",
    "Task",
    "WikiPassage",
    "choice_accuracy",
    "label_accuracy",
    "open_exact_match",
    "question_of",
    "read_dpr",
    "read_fever",
    "read_mmlu",
    "read_nq",
    "read_passages",
    "read_triviaqa",
    "read_webquestions",
]

__getattr__ = lazily(
    __name__,
    {
        "TASKS": "task",
        "Item": "questions",
        "Task": "task",
        "WikiPassage": "passages",
        "choice_accuracy": "scores",
        "label_accuracy": "scores",
        "open_exact_match": "scores",
        "question_of": "task",
        "read_dpr": "questions",
        "read_fever": "questions",
        "read_mmlu": "questions",
        "read_nq": "questions",
        "read_passages": "passages",
        "read_triviaqa": "questions",
        "read_webquestions": "questions",
    },
)
