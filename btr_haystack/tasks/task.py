# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""What a task is, and the five there are."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase

from btr_haystack.tasks.questions import (
    CHOICES,
    LABEL_WORDS,
    Item,
    read_fever,
    read_mmlu,
    read_nq,
    read_triviaqa,
    read_webquestions,
)
from btr_haystack.tasks.scores import choice_accuracy, label_accuracy, open_exact_match


@dataclass(frozen=True, slots=True)
class Task:
    """
    A task: how to read its file, the prompt that has `question_of` in place of "{query}", and the score of an answer.

    `words` are the only answers that there are, where that is so; the likeliest of them is what a model says, as the
    official script of MMLU has it.
    """

    read: Callable[[Path], list[Item]]
    prompt: str
    metric: Callable[[str, Item], float]
    metric_name: str
    words: tuple[str, ...] = ()


TASKS: dict[str, Task] = {
    "nq": Task(read_nq, "question: {query}", open_exact_match, "EM"),
    "triviaqa": Task(read_triviaqa, "question: {query}", open_exact_match, "EM"),
    "webquestions": Task(read_webquestions, "question: {query}", open_exact_match, "EM"),
    "fever": Task(read_fever, "Is this claim true or false? {query}", label_accuracy, "accuracy", LABEL_WORDS),
    "mmlu": Task(read_mmlu, "{query}\nAnswer:", choice_accuracy, "accuracy", tuple(CHOICES)),
}


def question_of(item: Item) -> str:
    """
    Put together what stands in place of "{query}" in a prompt: the question, and its choices with their letters.

    >>> question = question_of(Item("misc/1", "What animal is a peregrine?", ("C",), (), ("cat", "fish", "bird")))
    >>> print(TASKS["mmlu"].prompt.replace("{query}", question))
    What animal is a peregrine?
    A. cat
    B. fish
    C. bird
    Answer:
    >>> question_of(Item("1", "who painted the mona lisa", ("Leonardo da Vinci",)))
    'who painted the mona lisa'

    :param item: Of any task.
    :returns: The text; the question alone where there are no choices.
    """
    choices = (f"{letter}. {choice.strip()}" for letter, choice in zip(ascii_uppercase, item.choices, strict=False))
    return "\n".join((item.question.strip(), *choices))
